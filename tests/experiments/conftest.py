"""Sets of experiments in miniature: one with every kind of row to be run, and results that were made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from gptrec_rl.data import Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.evaluation import EvaluationTable, measure
from gptrec_rl.experiments.results import Result, per_user_file, point_of, sha256_of, write_result
from gptrec_rl.experiments.sets import read_set
from gptrec_rl.experiments.study import Study
from gptrec_rl.telemetry.history import Validation

K = 3

PUBLISHED: Mapping[str, Any] = {
    "sources": {"paper": "A paper", "other": "Another one"},
    "sets": {
        "tiny": {
            "popularity": {"source": "paper", "values": {"Recall@1": 0.5, "NDCG@3": 0.25}},
            "sasrec": {"source": "paper", "values": {"Recall@1": 0.4}},
            "student": {"source": "other", "values": {"NDCG@3": 0.3}},
        }
    },
}
DATASET: Mapping[str, Any] = {
    "title": "Tiny data",
    "data_name": "synthetic",
    "prepare": "gptrec-rl data prepare synthetic",
    "baseline": "sasrec",
    "k": K,
}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {"type": "Baselines", "built_in": {"model": "popularity"}, "strategies": ["top-k"]},
    "sasrec": {"type": "Baselines", "train": {"model": "sasrec"}, "strategies": ["top-k", "next-k"]},
    "student": {"type": "Supervised", "pretrain": {"teacher": "sasrec"}, "strategies": ["next-k", "top-k"]},
    "diverse": {"type": "Tuned", "tune": {"student": "student", "goal": "ndcg=1,ild=1"}, "seeds": [0, 1]},
    "mmr": {
        "type": "Rerankers",
        "rerank": {
            "base": "sasrec",
            "method": "mmr",
            "scaling": "min-max",
            "weights": [0.0, 0.5, 1.0],
            "goals": ["ndcg=1,ild=1"],
        },
    },
}


def write_set(folder: Path, rows: Mapping[str, Mapping[str, Any]], dataset: Mapping[str, Any]) -> Path:
    """Write a set's files; rows stand in the table in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(tomli_w.dumps(dataset))
    for place, (row_id, row) in enumerate(rows.items()):
        budget = {"steps": 1} if "tune" in row else {}
        trained = {"budgets": {"cpu": budget}} if {"train", "pretrain", "tune"} & set(row) else {}
        whole = {"name": f"The {row_id}", "place": place, **trained, **row}
        (folder / f"{row_id}.toml").write_text(tomli_w.dumps(whole))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return the folder of a set with a row of each kind, its data file, and published numbers."""
    data = tmp_path / "tiny.npz"
    generate(n_users=60, n_items=60, mean_length=12).save(data)
    folder = write_set(tmp_path / "experiments" / "tiny", ROWS, {**DATASET, "data": str(data)})
    (folder.parent / "published.toml").write_text(tomli_w.dumps(PUBLISHED))
    return folder


@pytest.fixture
def study(tiny: Path, tmp_path: Path) -> Study:
    """Return the tiny set's study, without results."""
    return Study(read_set(tiny, "cpu"), "cpu", tmp_path / "runs", tmp_path / "results")


MakeUp = Callable[..., dict[str, EvaluationTable]]


@pytest.fixture
def make_up(study: Study) -> MakeUp:
    """Return a maker of a row's result from random lists that find the held-out item with a chance."""
    split = study.split()

    def lists(seed: int, hit_prob: float) -> np.ndarray:
        random = np.random.default_rng(seed)
        items = np.stack([random.choice(60, K, replace=False) + 1 for _ in split.test.users])
        hits = random.random(len(items)) < hit_prob
        items[hits, random.integers(K, size=hits.sum())] = split.test.ground_truth[hits]
        return items

    def make(row_id: str, seed: int = 0, hit_prob: float = 0.3, users: Split = split) -> dict[str, EvaluationTable]:
        row = study.experiments.rows[row_id]
        labels = {f"{w:g}": w for w in row.rerank.weights} if row.rerank else dict.fromkeys(row.strategies)
        tables = {
            label: measure(lists(100 * seed + place, hit_prob), users.test, users, name=row.name)
            for place, label in enumerate(labels)
        }
        kept = {"0.5": tables["0.5"]} if row.rerank else tables
        per_user = per_user_file(kept)
        checked = [Validation(step=s, minutes=s / 9, reward=0.5, values=table_means(kept), errors={}) for s in (0, 9)]
        result = Result(
            row=row_id,
            budget=study.budget,
            seed=seed,
            configuration=row,
            settings={},
            data={"name": "synthetic", "users": 60, "mean_length": 12.0},
            catalogue_hash=users.catalogue.hash,
            split_hash=users.hash,
            users=len(users.test.users),
            k=K,
            points={
                label: point_of(table, labels[label], ["ild=1,ndcg=1"] if row.rerank and label in kept else ())
                for label, table in tables.items()
            },
            per_user_sha256=sha256_of(per_user),
            training_s=90.0,
            evaluation_s=2.0,
            steps=7 if row.is_trained else None,
            validations=tuple(checked) if row.tune else (),
            machine="a machine",
            versions={"torch": "9.9"},
            commit="abc",
            command=study.command(row_id, seed),
        )
        write_result(study.result_file(row_id, seed), result, per_user)
        return tables

    return make


def table_means(tables: Mapping[str, EvaluationTable]) -> dict[str, float]:
    """Return the means of the first table."""
    return next(iter(tables.values())).summary()
