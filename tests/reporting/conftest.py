"""Evidence made by hand: a baseline, a model, a row that was not run, a student tuned with two seeds, and a curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.config import (
    BuiltIn,
    DatasetConfig,
    How,
    Pretrain,
    Rerank,
    RowConfig,
    Train,
    Tune,
)
from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.published import Published
from gptrec_rl.experiments.results import Checked, Result, per_user_file, point_of, sha256_of, write_result
from gptrec_rl.experiments.sets import ExperimentSet
from gptrec_rl.experiments.study import Study
from gptrec_rl.metrics import ndcg_of_ranks

K = 2
N_USERS = 60


def table_of(ranks: Sequence[int], ild: float, npcount: float) -> EvaluationTable:
    """Return a table of users whose ranks repeat, with some spread around the means."""
    all_ranks = np.resize(ranks, N_USERS)
    spread = np.resize([0.9, 1.1], N_USERS)
    per_user = {
        "Recall@1": (all_ranks == 1).astype(np.float64),
        "Recall@2": (all_ranks > 0).astype(np.float64),
        "NDCG@2": ndcg_of_ranks(all_ranks, K),
        "ILD@2": ild * spread,
        "PCOUNT@2": 0.1 * npcount * spread,
        "nPCOUNT@2": npcount * spread,
        "MIUF@2": 3.0 * spread,
        "Tail@2": np.resize([0.0, 0.5], N_USERS),
    }
    users = np.array([str(user) for user in range(N_USERS)])
    return EvaluationTable("t", K, "split", users, per_user, all_ranks, {"Coverage@2": 0.5, "Gini@2": 0.25}, 0)


def row(name: str, type_: str, place: float, how: How, **more: object) -> RowConfig:
    key = {BuiltIn: "built_in", Train: "train", Pretrain: "pretrain", Tune: "tune", Rerank: "rerank"}[type(how)]
    budgets = {} if isinstance(how, BuiltIn | Rerank) else {"cpu": {"steps": 1} if isinstance(how, Tune) else {}}
    return RowConfig.model_validate({"name": name, "type": type_, "place": place, key: how, "budgets": budgets, **more})


CURVE = Rerank(base="base", method="mmr", scaling="raw", weights=(0.5, 1.0), goals=("ndcg=1,ild=1",))
BOTH = ("top-k", "next-k")
ROWS = {
    "base": row("Base", "Baselines", 1, Train(model="sasrec"), strategies=BOTH),
    "weak": row("Weak & small", "Baselines", 2, BuiltIn(model="popularity")),
    "absent": row("Absent", "Baselines", 3, BuiltIn(model="markov")),
    "student": row("GPTRec-Student", "Supervised", 4, Pretrain(teacher="base")),
    "tuned": row("GPTRec-Tuned", "Tuned", 5, Tune(student="student", goal="ndcg=1,ild=1"), seeds=(0, 1)),
    "mmr": row("MMR", "Rerankers", 6, CURVE),
    "unswept": row("Unswept", "Rerankers", 7, CURVE),
}
PUBLISHED = {
    "base": Published(source="paper", values={}, next_k={1: -0.25, 3: 0.0}),
    "weak": Published(source="paper", values={"NDCG@2": 0.5, "ILD@2": 0.25}),
    "absent": Published(source="other", values={"NDCG@2": 0.3}),
}
TABLES = {
    # Half of the users at rank 1, Next-K: a quarter.
    ("base", 0): {"top-k": table_of([1, 0], 0.2, 0.5), "next-k": table_of([1, 0, 0, 0], 0.2, 0.5)},
    ("weak", 0): {"next-k": table_of([0, 0, 0, 1], 0.3, 1.0)},
    ("student", 0): {"next-k": table_of([1, 0, 1, 0, 0], 0.2, 0.5)},
    ("tuned", 0): {"next-k": table_of([1, 0, 0], 0.4, 0.6)},
    ("tuned", 1): {"next-k": table_of([1, 0, 0], 0.44, 0.6)},
    ("mmr", 0): {"0.5": table_of([1, 0, 0, 0, 0], 0.45, 0.7), "1": table_of([1, 0], 0.2, 0.5)},
}


@pytest.fixture
def make_evidence(tmp_path: Path) -> Callable[..., Evidence]:
    """Return a maker of the evidence, with some of the results or all."""

    def make(*left_out: str, baseline: str = "base") -> Evidence:
        dataset = DatasetConfig(title="By hand", data="none.npz", data_name="none", k=K, baseline=baseline)
        sources = {"paper": "A <paper>", "other": "Another one"}
        experiments = ExperimentSet(tmp_path / "hand", dataset, ROWS, PUBLISHED, sources)
        study = Study(experiments, "cpu", tmp_path / "runs", tmp_path / "results")
        for (row_id, seed), tables in TABLES.items():
            if row_id not in left_out:
                write(study, row_id, seed, tables)
        return Evidence.of(study)

    return make


@pytest.fixture
def evidence(make_evidence: Callable[..., Evidence]) -> Evidence:
    """Return the whole of it."""
    return make_evidence()


def write(study: Study, row_id: str, seed: int, tables: dict[str, EvaluationTable]) -> None:
    config = ROWS[row_id]
    curve = config.rerank is not None
    kept = {"0.5": tables["0.5"]} if curve else tables
    per_user = per_user_file({label: replace(table, name=config.name) for label, table in kept.items()})
    points = {
        label: point_of(table, float(label) if curve else None, CURVE.goals if curve and label in kept else ())
        for label, table in tables.items()
    }
    path = [
        Checked(
            step=10 * i, minutes=i / 2, reward=0.6, values={"NDCG@2": 0.3 - i / 100, "ILD@2": 0.2 + i / 10}, errors={}
        )
        for i in range(3)
    ]
    result = Result(
        row=row_id,
        budget="cpu",
        seed=seed,
        configuration=config,
        settings={},
        data={"name": "hand", "users": N_USERS, "mean_length": 12.3456},
        catalogue_hash="catalogue",
        split_hash="split",
        users=N_USERS,
        k=K,
        points=points,
        per_user_sha256=sha256_of(per_user),
        training_s=90.0 if config.is_trained else 0.0,
        evaluation_s=2.0,
        steps=1234 if config.is_trained else None,
        validations=tuple(path) if config.tune else (),
        machine="A processor, 2 cores",
        versions={"torch": "9.9"},
        commit=None,
        command=study.command(row_id, seed),
    )
    write_result(study.result_file(row_id, seed), result, per_user)
