from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.numpy import load
from transformers import GPT2LMHeadModel

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.errors import InputError
from gptrec_rl.store.trained_models import STUDENT, load_policy, read_model
from gptrec_rl.telemetry.ending import read_end

Run = Callable[..., Result]

SMALL_MODEL = (
    *("--set", "model.width=16", "--set", "model.n_layers=2", "--set", "model.n_heads=2"),
    *("--set", "model.history_length=8", "--set", "model.slate_length=4"),
    *("--set", "batch_size=8", "--set", "validate_every=2", "--set", "precision=fp32"),
)


@pytest.fixture
def pretrain(run: Run, tmp_path: Path) -> Run:
    """Return a runner of `gptrec-rl pretrain` of a small model on a small world, into tmp_path/run."""
    return lambda *options: run("pretrain", "--run-dir", tmp_path / "run", *SMALL_MODEL, *options)


def counters_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "state/counters.json").read_text())


def test_it_stops_at_its_budget_with_a_student_that_loads(pretrain: Run, world: Any, tmp_path: Path) -> None:
    result = pretrain("--max-steps", 5)
    assert result.exit_code == 0, result.output
    assert "Stage 1 after 5 steps" in result.output
    student = load_policy(tmp_path / "run", world.split.catalogue)
    assert (student.history_length, student.slate_length, student.n_items) == (8, 4, 60)
    entry, _ = read_model(tmp_path / "run")
    assert (entry.step, entry.split_hash) == (5, world.split.hash)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    best = min(line["validation_loss"] for line in lines)
    assert f"validation cross-entropy {best:.4f}" in result.output


def test_hugging_face_loads_the_student_with_the_same_logits(pretrain: Run, world: Any, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 2).exit_code == 0
    ours = load_policy(tmp_path / "run", world.split.catalogue).network
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "run" / STUDENT).eval()
    tokens = torch.tensor([[5, 17, 2, 61, 30, 9]])  # 61 is the separator of 60 items
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens).logits)


def test_a_resumed_training_goes_on_counting(pretrain: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 2).exit_code == 0
    before = counters_of(tmp_path / "run")
    result = pretrain("--max-steps", 5, "--on-existing", "resume")
    assert result.exit_code == 0, result.output
    after = counters_of(tmp_path / "run")
    assert (before["step"], after["step"]) == (2, 5)
    moments = load((tmp_path / "run/state/optimiser.safetensors").read_bytes())
    assert {int(value) for name, value in moments.items() if name.endswith(".step")} == {5}
    assert tomllib.loads((tmp_path / "run/config.toml").read_text())["max_steps"] == 5


def test_a_resumed_training_needs_no_settings_again(pretrain: Run, run: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 2, "--seed", 9).exit_code == 0
    before = tomllib.loads((tmp_path / "run/config.toml").read_text())
    assert run("pretrain", "--run-dir", tmp_path / "run", "--on-existing", "resume").exit_code == 0
    assert tomllib.loads((tmp_path / "run/config.toml").read_text()) == before
    assert before["seed"] == 9


def test_a_run_that_exists_is_refused_and_left_alone(pretrain: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 2).exit_code == 0
    before = (tmp_path / "run/config.toml").read_bytes(), counters_of(tmp_path / "run")
    result = pretrain("--max-steps", 4)
    assert result.exit_code == 2
    assert "continue it with --on-existing resume" in result.output
    assert ((tmp_path / "run/config.toml").read_bytes(), counters_of(tmp_path / "run")) == before


def test_overwriting_starts_again(pretrain: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 3).exit_code == 0
    assert pretrain("--max-steps", 1, "--on-existing", "overwrite").exit_code == 0
    assert counters_of(tmp_path / "run")["step"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "learning_rat=1e-3"), "there is no setting learning_rat; did you mean learning_rate?"),
        (("--set", "model.widht=16"), "there is no setting model.widht; did you mean model.width?"),
        (("--set", "batch_size=0"), "batch_size = 0"),
        (("--set", "split.validation_users=60"), "60 validation users can't be drawn"),
        (("--set", "model.slate_length=58"), "58"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    options: tuple[str, ...], message: str, pretrain: Run, tmp_path: Path
) -> None:
    result = pretrain("--max-steps", 1, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("titles", "on other data"),
        ("model.width=32", "has model.width = 16 and can't go on with 32"),
        ("teacher=popularity", "was begun with teacher markov and can't go on with popularity"),
        ("rerank={method='mmr',weight=0.5}", "has rerank = None and can't go on with"),
    ],
)
def test_a_training_is_not_resumed_with_other_data_another_model_or_another_teacher(
    change: str, message: str, pretrain: Run, world: Any, tmp_path: Path
) -> None:
    assert pretrain("--max-steps", 1).exit_code == 0
    before = (tmp_path / "run/config.toml").read_bytes()
    options: tuple[object, ...] = ("--set", change)
    if change == "titles":
        catalogue = dataclasses.replace(world.split.catalogue, titles=np.char.upper(world.split.catalogue.titles))
        dataclasses.replace(world.interactions, catalogue=catalogue).save(tmp_path / "other.npz")
        options = ("--data", tmp_path / "other.npz")
    result = pretrain("--max-steps", 2, "--on-existing", "resume", *options)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert (tmp_path / "run/config.toml").read_bytes() == before


def test_a_training_goes_on_from_any_folder_without_the_student_that_it_started_from(
    pretrain: Run, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pretrain("--max-steps", 1).exit_code == 0
    more = ("--run-dir", tmp_path / "more", *SMALL_MODEL)
    assert run("pretrain", *more, "--start", "run", "--max-steps", 1).exit_code == 0
    assert tomllib.loads((tmp_path / "more/config.toml").read_text())["start"] == str(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume = ("pretrain", "--run-dir", tmp_path / "more", "--on-existing", "resume", "--max-steps")
    assert run(*resume, 2).exit_code == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    assert run(*resume, 3).exit_code == 0
    assert counters_of(tmp_path / "more")["step"] == 3
    assert run(*resume, 3, "--start", tmp_path / "moved").exit_code == 0  # the same, by its content
    other = run(*resume, 4, "--start", tmp_path / "more")
    assert other.exit_code == 2
    assert f"has start = {tmp_path / 'moved'} and can't go on with {tmp_path / 'more'}" in other.output


def test_a_training_goes_on_with_a_teacher_that_moved_and_not_with_another_in_its_place(
    pretrain: Run, run: Run, tmp_path: Path
) -> None:
    for name, seed in (("teacher", 1), ("other", 2)):
        taught = run("pretrain", *SMALL_MODEL, "--run-dir", tmp_path / name, "--max-steps", 2, "--seed", seed)
        assert taught.exit_code == 0, taught.output
    assert pretrain("--teacher", tmp_path / "teacher", "--max-steps", 1).exit_code == 0
    resume = ("pretrain", "--run-dir", tmp_path / "run", "--on-existing", "resume", "--max-steps")
    (tmp_path / "teacher").rename(tmp_path / "moved")
    gone = run(*resume, 2)
    assert gone.exit_code == 2
    assert f"a student needs its teacher: there is no model '{tmp_path / 'teacher'}'" in gone.output
    moved = run(*resume, 2, "--teacher", tmp_path / "moved")
    assert moved.exit_code == 0, moved.output
    before = (tmp_path / "run/config.toml").read_bytes(), counters_of(tmp_path / "run")
    shutil.rmtree(tmp_path / "moved")
    (tmp_path / "other").rename(tmp_path / "moved")
    other = run(*resume, 3)
    assert other.exit_code == 2
    assert "was begun with teacher " in other.output
    assert ((tmp_path / "run/config.toml").read_bytes(), counters_of(tmp_path / "run")) == before


def test_how_a_training_ended_stands_in_its_folder(
    pretrain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrain("--max-steps", 1).exit_code == 0
    assert str(read_end(tmp_path / "run")) == "finished"

    def fail(*_: object) -> float:
        raise InputError("a teacher fails")

    monkeypatch.setattr("gptrec_rl.learning.pretraining.Pretraining._losses", fail)
    assert pretrain("--max-steps", 2, "--on-existing", "resume").exit_code == 2
    assert str(read_end(tmp_path / "run")) == "failed: a teacher fails"


def test_a_tuning_run_is_no_training_to_resume(pretrain: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_config(TuneConfig(), tmp_path / "run/config.toml")
    result = pretrain("--max-steps", 2, "--on-existing", "resume")
    assert result.exit_code == 2
    assert "is a tuning run and not a training" in result.output


def test_a_student_goes_on_from_another_with_a_reranked_teacher(pretrain: Run, run: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 2).exit_code == 0
    reranked = ("--set", "rerank.method=mmr", "--set", "rerank.weight=0.4")
    more = (*SMALL_MODEL, "--start", tmp_path / "run", "--run-dir", tmp_path / "more", "--max-steps", 1, *reranked)
    result = run("pretrain", *more, "--set", "learning_rate=1e-9")
    assert result.exit_code == 0, result.output
    first, second = (load((tmp_path / name / STUDENT / "model.safetensors").read_bytes()) for name in ("run", "more"))
    assert all(np.allclose(first[name], second[name], atol=1e-6) for name in first)
    assert tomllib.loads((tmp_path / "more/config.toml").read_text())["rerank"]["method"] == "mmr"
    assert "note:" not in result.output


def test_a_start_of_another_split_is_mentioned(pretrain: Run, run: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 1).exit_code == 0
    more = ("--start", tmp_path / "run", "--run-dir", tmp_path / "more", "--max-steps", 1, "--set", "split.seed=7")
    result = run("pretrain", *SMALL_MODEL, *more)
    assert result.exit_code == 0, result.output
    assert f"note: {tmp_path / 'run'} was trained on another split" in result.output


def test_a_student_of_another_size_is_no_start(pretrain: Run, run: Run, tmp_path: Path) -> None:
    assert pretrain("--max-steps", 1).exit_code == 0
    other = ("--run-dir", tmp_path / "more", "--max-steps", 1, "--set", "model.history_length=3")
    result = run("pretrain", *SMALL_MODEL, "--start", tmp_path / "run", *other)
    assert result.exit_code == 2
    assert "its history_length" in result.output
    assert not (tmp_path / "more").exists()
