"""`gptrec-rl train`: every model from its settings to a folder that the other commands read."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from gptrec_rl.kinds import trained_kinds
from gptrec_rl.models.bert4rec import Bert4Rec
from gptrec_rl.models.bpr import MatrixFactorization
from gptrec_rl.models.next_item import GPTRecShifting, SASRec
from gptrec_rl.runs.models import ModelChoice
from gptrec_rl.store.trained_models import load_model, load_policy, read_model
from gptrec_rl.telemetry.ending import read_end

Run = Callable[..., Result]

CLASSES = {"sasrec": SASRec, "shifting": GPTRecShifting, "bert4rec": Bert4Rec, "bpr": MatrixFactorization}
SMALL_TRANSFORMER = (
    *("--set", "model.width=16", "--set", "model.n_layers=2", "--set", "model.n_heads=2"),
    *("--set", "model.history_length=8", "--set", "batch_size=8", "--set", "precision=fp32"),
)
SMALL = dict.fromkeys(("sasrec", "shifting", "bert4rec"), (*SMALL_TRANSFORMER, "--set", "validate_every=2"))
SMALL["bpr"] = ("--set", "model.n_factors=4", "--set", "validate_every=2")
each = pytest.mark.parametrize("model", trained_kinds())


@pytest.fixture
def train(run: Run, tmp_path: Path) -> Run:
    """Return a runner of `gptrec-rl train` of a small model on a small world, into tmp_path/run."""
    return lambda model, *options: run("train", model, "--run-dir", tmp_path / "run", *SMALL[model], *options)


def counters_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "state/counters.json").read_text())


@each
def test_a_model_is_trained_saved_and_evaluated(model: str, train: Run, run: Run, world: Any, tmp_path: Path) -> None:
    result = train(model, "--max-steps", 5)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    measure = "1 - AUC" if model == "bpr" else "1 - NDCG@10"
    assert f"validation {measure} {min(line['validation_loss'] for line in lines):.4f}" in result.output
    loaded = load_model(tmp_path / "run", world.split.catalogue)
    assert type(loaded) is CLASSES[model]
    assert loaded.n_items == 60
    entry, files = read_model(tmp_path / "run")
    assert (entry.step, entry.split_hash) == (5, world.split.hash)
    assert json.loads(files["config.json"])["recommender"] == model
    evaluated = run("evaluate", f"mine={tmp_path / 'run'}")
    assert evaluated.exit_code == 0, evaluated.output
    assert "mine" in evaluated.output


@each
def test_a_trained_model_recommends_by_both_strategies(model: str, train: Run, world: Any, tmp_path: Path) -> None:
    assert train(model, "--max-steps", 2).exit_code == 0
    choice = ModelChoice.parse(str(tmp_path / "run"))
    next_k, top_k = (choice.open(world.split, strategy, "fp32") for strategy in ("next-k", "top-k"))
    histories = world.split.test.histories
    assert np.array_equal(next_k.recommend(histories, 1).items, top_k.recommend(histories, 1).items)
    seen = histories.contains(60)
    for slates in (next_k.recommend(histories, 10), top_k.recommend(histories, 10)):
        assert not seen[np.arange(60)[:, None], slates.items - 1].any()
        assert all(len(set(items)) == 10 for items in slates.items.tolist())


@each
def test_a_resumed_training_goes_on_with_its_settings(model: str, train: Run, run: Run, tmp_path: Path) -> None:
    assert train(model, "--max-steps", 2, "--seed", 9).exit_code == 0
    before = tomllib.loads((tmp_path / "run/config.toml").read_text())
    result = run("train", model, "--run-dir", tmp_path / "run", "--max-steps", 5, "--on-existing", "resume")
    assert result.exit_code == 0, result.output
    assert counters_of(tmp_path / "run")["step"] == 5
    assert tomllib.loads((tmp_path / "run/config.toml").read_text()) == before | {"max_steps": 5}
    assert train(model).exit_code == 2  # it exists


@pytest.mark.parametrize("model", ["sasrec", "bpr"])
def test_a_trained_model_is_no_student_but_a_teacher(
    model: str, train: Run, run: Run, world: Any, tmp_path: Path
) -> None:
    assert train(model, "--max-steps", 1).exit_code == 0
    options = ("tune", "--serial", "--steps", 1, "--run-dir", tmp_path / "tuned")
    result = run(*options, "--student", tmp_path / "run")
    assert result.exit_code == 2
    assert f"holds a {CLASSES[model].__name__}" in result.output
    assert f"pretrain --teacher {tmp_path / 'run'}" in " ".join(result.output.split())
    assert not (tmp_path / "tuned").exists()

    taught = (*SMALL_TRANSFORMER, "--set", "model.slate_length=4", "--max-steps", 2)
    result = run("pretrain", "--teacher", tmp_path / "run", "--run-dir", tmp_path / "student", *taught)
    assert result.exit_code == 0, result.output
    assert load_policy(tmp_path / "student", world.split.catalogue).slate_length == 4
    assert tomllib.loads((tmp_path / "student/config.toml").read_text())["teacher"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("svd",), "'svd' is not one of"),
        (("sasrec", "--set", "loss=hinge"), "loss"),
        (("bpr", "--set", "dropout=0.1"), "there is no setting dropout"),
        (("bert4rec", "--set", "mask_share=0"), "mask_share = 0"),
        (("shifting", "--set", "n_negatives=2"), "there is no setting n_negatives"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    result = run("train", *arguments, "--max-steps", 1, "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_weights_that_were_never_validated_are_no_model(
    train: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("gptrec_rl.reporting.progress.ProgressBar.show", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert train("sasrec", "--max-steps", 4, "--set", "validate_every=3").exit_code == 130
    assert counters_of(tmp_path / "run")["step"] == 2  # the end of the step after the signal, before a validation
    assert not (tmp_path / "run/model").exists()
    assert train("sasrec", "--max-steps", 4, "--on-existing", "resume").exit_code == 0
    assert (tmp_path / "run/model").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(
    number: signal.Signals, train: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("gptrec_rl.reporting.progress.ProgressBar.show", lambda *_: os.kill(os.getpid(), number))
    result = train("sasrec", "--max-steps", 9)
    assert result.exit_code == 128 + number
    assert "saved after 2 steps; go on with:" in result.output
    assert "--on-existing resume" in result.output
    assert read_end(tmp_path / "run").message == number.name
    assert signal.getsignal(number) is before


@each
def test_what_diverged_is_not_saved_over_what_was_whole(model: str, train: Run, tmp_path: Path) -> None:
    assert train(model, "--max-steps", 2).exit_code == 0
    files = {path: path.read_bytes() for name in ("state", "model") for path in (tmp_path / "run" / name).iterdir()}
    rate = ("--set", "learning_rate=1e38", "--on-existing", "resume")
    diverged = train(model, "--max-steps", 9, *rate, "--set", "checkpoint_every_s=1e-9")
    assert diverged.exit_code == 2
    assert "go on from there with --on-existing resume and a learning_rate below 1e+38" in diverged.output
    assert {path: path.read_bytes() for path in files} == files
    smaller = ("--set", "learning_rate=0.001", "--on-existing", "resume")
    assert train(model, "--max-steps", 5, *smaller).exit_code == 0
    assert counters_of(tmp_path / "run")["step"] == 5


def test_a_training_without_a_budget_is_refused(run: Run, tmp_path: Path) -> None:
    for command in (("train", "sasrec"), ("pretrain",)):
        result = run(*command, "--run-dir", tmp_path / "run")
        assert result.exit_code == 2
        assert "say how long to train: --max-minutes or --max-steps" in result.output
        assert not (tmp_path / "run").exists()


def test_a_budget_too_small_to_learn_in_is_said_at_the_start_and_at_the_end(train: Run) -> None:
    result = train("sasrec", "--max-steps", 9)
    assert result.output.count("The budget is about 9 steps, and fewer than 100 seldom teach") == 2
    assert "The budget" not in train("sasrec", "--max-steps", 110, "--on-existing", "overwrite").output


def test_what_is_not_set_stays_the_models_own(train: Run, run: Run, tmp_path: Path) -> None:
    sizes = ("--set", "model.width=16", "--set", "batch_size=8", "--max-steps", 1)
    assert run("train", "sasrec", "--run-dir", tmp_path / "run", *sizes).exit_code == 0
    stored = tomllib.loads((tmp_path / "run/config.toml").read_text())["model"]
    assert stored == {
        "n_layers": 2,
        "n_heads": 2,
        "width": 16,
        "history_length": 200,
    }


@pytest.mark.parametrize("seed", ["-1", str(2**63), "1.5"])
def test_a_seed_out_of_range_is_refused(seed: str, run: Run, tmp_path: Path) -> None:
    for command in (("train", "bpr"), ("pretrain",)):
        for option in (("--seed", seed), ("--set", f"seed={seed}"), ("--set", f"split.seed={seed}")):
            result = run(*command, "--max-steps", 1, "--run-dir", tmp_path / "run", *option)
            assert result.exit_code == 2, result.output
    assert run("evaluate", "popularity", "--split-seed", seed).exit_code == 2


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1", "0"])
def test_a_time_that_is_none_is_refused(minutes: str, run: Run, tmp_path: Path) -> None:
    result = run("train", "sasrec", "--max-minutes", minutes, "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert "max_minutes" in result.output


@pytest.mark.parametrize(("model", "other"), [("sasrec", "bpr"), ("shifting", "sasrec")])
def test_another_models_run_is_not_resumed(model: str, other: str, train: Run, run: Run, tmp_path: Path) -> None:
    assert train(model, "--max-steps", 1).exit_code == 0
    before = (tmp_path / "run/config.toml").read_bytes()
    result = run("train", other, "--run-dir", tmp_path / "run", "--max-steps", 2, "--on-existing", "resume")
    assert result.exit_code == 2
    assert counters_of(tmp_path / "run")["step"] == 1
    assert (tmp_path / "run/config.toml").read_bytes() == before
