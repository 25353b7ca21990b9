from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from gptrec_rl.decoding import NextK, TopK
from gptrec_rl.evaluation import EvaluationTable, evaluate
from gptrec_rl.metrics import BEYOND, METRICS
from gptrec_rl.models.markov import MarkovChain, PopularityRecommender
from gptrec_rl.recommender import Slates
from gptrec_rl.store.trained_models import save_policy

if TYPE_CHECKING:
    from gptrec_rl.models.gptrec import GPTRec

Run = Callable[..., Result]


def cells(table: EvaluationTable) -> list[str]:
    """Return the cells of a model's row: the paper's metrics."""
    means, errors = table.summary(), table.standard_errors()
    return [f"{means[known.name]:.4f} ± {errors[known.name]:.4f}" for known in METRICS]


def means(facts: dict[str, Any], model: str, kind: str = "metrics") -> dict[str, float]:
    return {name: value["mean"] for name, value in facts["models"][model][kind].items()}


def test_the_table_is_that_of_the_library(run: Run, world: Any) -> None:
    result = run("evaluate", "markov", f"mine={world.policy_folder}", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    teacher = evaluate(MarkovChain(world.split), world.split.test, world.split, name="markov")
    student = evaluate(NextK(world.policy, "fp32"), world.split.test, world.split, name="mine")
    lines = result.stdout.splitlines()
    assert lines[0] == "synthetic, 60 test users"
    assert lines[-1].startswith("took ")
    assert not any(known.name in result.stdout for known in BEYOND)
    for table in (teacher, student):
        (row,) = (line for line in lines if line.startswith(table.name))
        assert all(cell in row for cell in cells(table))


def test_both_strategies_and_validation_users_and_another_k(run: Run, world: Any, tmp_path: Path) -> None:
    both = ("--strategy", "next-k", "--strategy", "top-k")
    options = ("--users", "validation", "--k", 3, "--precision", "fp32", "--json", tmp_path / "facts.json")
    assert run("evaluate", world.policy_folder, "popularity", *both, *options).exit_code == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    cases = world.split.validation
    assert (facts["users"], facts["k"], facts["split_hash"]) == (len(cases.users), 3, world.split.hash)
    recommenders = {
        "student (Next-K)": NextK(world.policy, "fp32"),
        "student (Top-K)": TopK(world.policy, "fp32"),
        "popularity": PopularityRecommender(world.split),
    }
    assert facts["models"].keys() == recommenders.keys()
    for name, recommender in recommenders.items():
        expected = evaluate(recommender, cases, world.split, name=name, k=3).summary()
        assert means(facts, name) == pytest.approx(expected)


def test_differences_are_paired(run: Run, world: Any, tmp_path: Path) -> None:
    result = run("evaluate", "markov", "popularity", "--baseline", "markov", "--json", tmp_path / "facts.json")
    assert "Paired differences to markov, user by user:" in result.stdout
    chain, popular = (
        evaluate(recommender, world.split.test, world.split, name="any")
        for recommender in (MarkovChain(world.split), PopularityRecommender(world.split))
    )
    facts = json.loads((tmp_path / "facts.json").read_text())
    paired = popular.difference(chain)
    for name, value in facts["models"]["popularity"]["differences"].items():
        assert value == {
            "mean": pytest.approx(paired[name].mean),
            "standard_error": pytest.approx(paired[name].standard_error),
        }
    assert "differences" not in facts["models"]["markov"]


def test_per_user_files(run: Run, tmp_path: Path) -> None:
    one, folder = tmp_path / "one.parquet", tmp_path / "several"
    assert run("evaluate", "markov", "--per-user", one).exit_code == 0
    assert run("evaluate", "markov", "popularity", "--per-user", folder).exit_code == 0
    assert sorted(file.name for file in folder.iterdir()) == ["markov.csv", "popularity.csv"]
    frame = pd.read_csv(folder / "markov.csv")
    assert len(frame) == 60
    np.testing.assert_allclose(frame["NDCG@10"], pd.read_parquet(one)["NDCG@10"])


def test_a_section_of_a_document_has_the_command_as_typed(
    run: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "results.md"
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/bin/gptrec-rl", "evaluate", "markov", "--title", "The teacher"])
    assert run("evaluate", "markov", "--report", document, "--title", "The teacher").exit_code == 0
    text = document.read_text()
    assert "## The teacher\n" in text
    assert "gptrec-rl evaluate markov --title 'The teacher'" in text
    assert "/opt" not in text
    table = evaluate(MarkovChain(world.split), world.split.test, world.split, name="markov")
    assert all(cell in text for cell in cells(table))


def test_a_recommender_that_breaks_the_rules_gets_no_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_the_same(self: Any, histories: Any, k: int, allowed: Any = None) -> Slates:
        return Slates(np.ones((len(histories), k), dtype=np.int64), np.zeros((len(histories), k), dtype=np.float32))

    monkeypatch.setattr(MarkovChain, "recommend", always_the_same)
    result = run("evaluate", "markov")
    assert result.exit_code == 2
    assert "markov recommended" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-here"], "there is no model 'nothing-here': give markov, popularity"),
        (["markov", "x=markov", "x=popularity"], "two models are called 'x'"),
        (["markov", "--baseline", "popularity"], "--baseline 'popularity' is none of the models; give one of markov"),
        (["markov", "popularity", "--per-user", "one.csv"], "one.csv is one file for 2 models"),
        (["markov", "--k", "59"], "can't be made"),
        (["markov", "--validation-users", "60"], "(--validation-users) between 1 and 59"),
    ],
)
def test_bad_input_is_named(run: Run, arguments: list[str], message: str) -> None:
    result = run("evaluate", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_lists_longer_than_the_policy_writes(run: Run, world: Any) -> None:
    result = run("evaluate", world.policy_folder, "--k", 11)
    assert result.exit_code == 2
    assert "K = 11 is longer than the lists of 10 items" in result.stderr


def test_a_folder_without_a_model_a_damaged_one_and_one_of_another_catalogue(
    run: Run, world: Any, tmp_path: Path, make_policy: Callable[..., GPTRec]
) -> None:
    hashes = {"catalogue_hash": world.interactions.catalogue.hash, "split_hash": world.split.hash}
    (tmp_path / "empty").mkdir()
    save_policy(tmp_path / "cut", world.policy.to_files(), step=0, config={}, **hashes)
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    save_policy(
        tmp_path / "other",
        make_policy().to_files(),
        step=0,
        config={},
        **hashes | {"catalogue_hash": "0123456789abcdef"},
    )
    for folder, message in {
        "empty": "is not a checkpoint",
        "cut": "model.safetensors has",
        "other": "was trained on another catalogue (0123456789ab",
    }.items():
        result = run("evaluate", tmp_path / folder)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_policy_of_another_split_is_mentioned_and_not_validated(run: Run, world: Any) -> None:
    other = ("--validation-users", 20)
    tested = run("evaluate", world.policy_folder, *other)
    assert tested.exit_code == 0
    assert "note: student was trained on another split" in tested.stderr
    refused = run("evaluate", world.policy_folder, *other, "--users", "validation")
    assert refused.exit_code == 2
    assert "perhaps on these validation users" in refused.stderr


def test_a_sample_of_users_is_drawn_by_the_seed_and_said_everywhere(run: Run, world: Any, tmp_path: Path) -> None:
    def sampled(seed: int) -> tuple[str, list[str]]:
        files = ("--json", tmp_path / "e.json", "--per-user", tmp_path / "u.csv")
        result = run("evaluate", "popularity", "--users", 20, "--split-seed", seed, *files)
        assert result.exit_code == 0, result.output
        described = json.loads((tmp_path / "e.json").read_text())
        assert described["users"] == 20
        assert f"20 of 60 test users (a sample by seed {seed})" in result.stdout
        assert f"20 of 60 test users (a sample by seed {seed})" in described["data"]
        return result.stdout, pd.read_csv(tmp_path / "u.csv", dtype=str)["user"].tolist()

    _, users = sampled(1)
    assert len(set(users)) == 20
    assert sampled(1)[1] == users != sampled(2)[1]
    assert "neither test, validation nor a number" in run("evaluate", "popularity", "--users", "0").stderr


def test_users_with_too_few_items_left_are_left_out_and_counted(run: Run, world: Any) -> None:
    lengths = world.split.test.histories.lengths
    k = 60 - int(np.sort(lengths)[-3])  # too much for the two users with the longest histories, if they are longer
    n_busy = int((60 - lengths < k).sum())
    assert n_busy > 0
    result = run("evaluate", "popularity", "--k", k)
    assert result.exit_code == 0, result.output
    assert f"{60 - n_busy} test users ({n_busy} left out, who have fewer than {k} items left)" in result.stdout


def test_files_are_written_whatever_the_terminal_can_show(world: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from gptrec_rl.cli import main; main()", "evaluate", "popularity"]
    environment = os.environ | {"GPTREC_DATA": str(world.data), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([*command, "--json", tmp_path / "e.json"], env=environment, capture_output=True, check=True)
    assert b"NDCG@10 ?" in done.stdout
    assert json.loads((tmp_path / "e.json").read_text())["users"] == 60


@pytest.mark.parametrize("option", ["--json", "--report", "--per-user"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(option: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("evaluate", "popularity", option, tmp_path / "file" / "x.csv")
    assert result.exit_code == 2
    assert f"{option} {tmp_path}/file/x.csv can't be written" in " ".join(result.stderr.split())
