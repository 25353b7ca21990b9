from __future__ import annotations

import errno
import itertools
import json
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from gptrec_rl.models import precision
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.trained_models import STORE, load_policy, save_policy
from gptrec_rl.telemetry.ending import read_end
from gptrec_rl.telemetry.records import RunRecords

Run = Callable[..., Result]

SMALL = ("--set", "fleet.n_histories=4", "--set", "fleet.n_lists=3", "--set", "fleet.publish_every=2")

OWN_REWARDS = """
import numpy as np

def cheap(slates, ground_truth, histories, catalogue):
    return np.isin(slates, np.arange(1, 11)).astype(np.float32)

def undefined(slates, ground_truth, histories, catalogue):
    return np.full(slates.shape, np.nan)

def too_short(slates, ground_truth, histories, catalogue):
    return np.zeros(len(slates))
"""

TERMINATES_AT_THE_FIFTH_CALL = """
import os, signal
from itertools import count
import numpy as np

calls = count(1)

def ones(slates, ground_truth, histories, catalogue):
    if next(calls) == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return np.ones(slates.shape)
"""


@pytest.fixture
def tune(run: Run, world: Any, tmp_path: Path) -> Run:
    """Return a runner of `gptrec-rl tune --serial` on a small world, into tmp_path/run."""

    def tune(*options: object, student: Path | None = world.policy_folder, run_dir: Path = tmp_path / "run") -> Result:
        given = ("--student", student) if student else ()
        return run("tune", "--serial", "--run-dir", run_dir, *given, *SMALL, *options)

    return tune


def config_of(run_dir: Path) -> dict[str, Any]:
    return tomllib.loads((run_dir / "config.toml").read_text())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_serial_run_leaves_a_best_policy_its_path_and_its_records(tune: Run, world: Any, tmp_path: Path) -> None:
    result = tune("--steps", 3)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "run"
    store = CheckpointStore(str(folder / STORE))
    best = store.best()
    assert best is not None
    assert f"version {best[0].version} after {best[0].step} of 3 steps" in result.output
    assert (folder / "report/validator-path.png").stat().st_size > 0
    curves = sorted(path.name for path in (folder / "tensorboard").iterdir())
    assert curves == ["generator-0", "optimiser-0", "pictures", "validator-0"]
    assert [line["values"]["val/version"] for line in lines_of(folder / "validations.jsonl")] == [0, 1, 2]
    assert {line["role"] for line in lines_of(folder / "metrics.jsonl")} == {"generator", "optimiser", "validator"}
    assert load_policy(folder, world.split.catalogue).to_files() == store.read(best[0])


def test_a_resumed_run_goes_on_with_its_own_settings(tune: Run, tmp_path: Path) -> None:
    assert tune("--steps", 2, "--seed", 7, "--goal", "ndcg=1,pcount=2").exit_code == 0
    before = config_of(tmp_path / "run")
    result = tune("--steps", 4, "--on-existing", "resume", student=None)
    assert result.exit_code == 0, result.output
    assert config_of(tmp_path / "run") == {**before, "steps": 4}
    store = CheckpointStore(str(tmp_path / "run" / STORE))
    assert [(state.token, state.step) for state in store.learner_states()] == [(1, 2), (2, 4)]
    versions = [line["values"]["val/version"] for line in lines_of(tmp_path / "run/validations.jsonl")]
    assert versions == sorted(set(versions))


def test_a_run_that_exists_is_refused(tune: Run, tmp_path: Path) -> None:
    assert tune("--steps", 1).exit_code == 0
    before = config_of(tmp_path / "run")
    result = tune("--steps", 2)
    assert result.exit_code == 2
    assert "continue it with --on-existing resume" in result.output
    assert config_of(tmp_path / "run") == before


def test_the_users_own_reward_is_tuned_for_by_its_import_path(
    tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rewards_of_tune.py").write_text(OWN_REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    result = tune("--steps", 2, "--goal", "ndcg=1,own_rewards_of_tune:cheap=0.5")
    assert result.exit_code == 0, result.output
    generated = [line for line in lines_of(tmp_path / "run/metrics.jsonl") if line["role"] == "generator"]
    assert generated[-1]["values"]["reward/own_rewards_of_tune:cheap"] > 0
    for name, message in (("undefined", "returned nan for list"), ("too_short", "returned shape (2,)")):
        result = tune("--steps", 2, "--goal", f"own_rewards_of_tune:{name}=1", run_dir=tmp_path / name)
        assert result.exit_code == 2
        assert f"reward 'own_rewards_of_tune:{name}' {message}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say how long to tune: --max-minutes or --steps"),
        (("--steps", 1, "--set", "ppo.polcy_learning_rate=1"), "did you mean ppo.policy_learning_rate?"),
        (("--steps", 1, "--goal", "idl=1"), "unknown reward 'idl'; did you mean 'ild'?"),
        (("--steps", 1, "--set", "ppo.baseline=group", "--set", "fleet.n_lists=1"), "set fleet.n_lists to 2 or more"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    options: tuple[object, ...], message: str, tune: Run, tmp_path: Path
) -> None:
    result = tune(*options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_what_a_fleet_cannot_do_is_said_before_a_run_is_replaced(
    tune: Run, run: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert tune("--steps", 1).exit_code == 0
    before = config_of(tmp_path / "run")
    fleet = ("tune", "--run-dir", tmp_path / "run", "--student", world.policy_folder, "--on-existing", "overwrite")
    crowded = run(*fleet, "--steps", 1, "--generators", 5000)
    assert crowded.exit_code == 2
    assert "5000 generators are more than" in crowded.output
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    precision._warn_of_slow_bf16.cache_clear()
    unreachable = run(*fleet, "--steps", 1, "--set", "precision=bf16", "--redis-url", "redis://localhost:1")
    assert unreachable.exit_code == 2
    assert [record.message for record in caplog.records if "without bf16 units" in record.message]
    assert config_of(tmp_path / "run") == before


def test_the_papers_preset_gives_way_to_what_is_set(tune: Run, tmp_path: Path) -> None:
    result = tune("--paper", "--steps", 1, "--generators", 2)
    assert result.exit_code == 0, result.output
    config = config_of(tmp_path / "run")
    assert (config["steps"], config["ppo"]["policy_learning_rate"], config["ppo"]["passes"]) == (1, 1e-5, 1)
    assert (config["fleet"]["max_staleness"], config["fleet"]["n_generators"]) == ("none", 2)
    assert config["fleet"]["n_histories"] == 4


def test_a_recorded_run_is_replayed_to_the_same_policy(tune: Run, run: Run, tmp_path: Path) -> None:
    assert tune("--steps", 5, "--seed", 3, "--record").exit_code == 0
    result = run("tune", "--replay", tmp_path / "run", "--run-dir", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert "Replayed 5 steps" in result.output
    assert "3 published policies, all the same bits" in result.output
    stores = [CheckpointStore(str(tmp_path / name / STORE)) for name in ("run", "again")]
    recorded, replayed = (store.read(store.policies()[-1]) for store in stores)
    assert replayed == recorded
    assert config_of(tmp_path / "again")["seed"] == 3
    assert lines_of(tmp_path / "again/validations.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--replay", "run"), "run has no recording; make one with 'gptrec-rl tune --record'"),
        (("--replay", "run", "--goal", "ndcg=1"), "repeats a run with its own settings, student and seed; leave out"),
        (("--replay", "run", "--set", "ppo.clip=1"), "leave out --set"),
        (("--replay", "run", "--on-existing", "resume"), "a replay begins at the first step"),
    ],
)
def test_a_replay_takes_nothing_but_a_recording(
    options: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    result = run("tune", "--run-dir", tmp_path / "again", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "again").exists()


def test_sigterm_stops_a_serial_run_with_all_that_it_learned(
    tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reward_that_terminates.py").write_text(TERMINATES_AT_THE_FIFTH_CALL)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    result = tune("--steps", 100, "--goal", "ndcg=1,reward_that_terminates:ones=1")
    assert result.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    store = CheckpointStore(str(tmp_path / "run" / STORE))
    assert 0 < store.learner_states()[-1].step == store.policies()[-1].step < 10


def test_records_without_room_end_a_serial_run_in_words_with_all_that_it_learned(
    tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, append = itertools.count(), RunRecords.append

    def full_from_the_third(*arguments: Any) -> None:
        if next(calls) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(*arguments)

    monkeypatch.setattr(RunRecords, "append", full_from_the_third)
    result = tune("--steps", 100)
    assert result.exit_code == 74
    assert "can't be written: [Errno 28] No space left on device; free some space" in result.output
    store = CheckpointStore(str(tmp_path / "run" / STORE))
    assert 0 < store.learner_states()[-1].step == store.policies()[-1].step < 100


def test_threads_are_of_a_run_in_one_process(tune: Run, run: Run, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert tune("--steps", 1, "--threads", 1).exit_code == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    result = run("tune", "--run-dir", tmp_path / "fleet", "--steps", 1, "--threads", 1)
    assert result.exit_code == 2
    assert "--threads is of --serial" in result.output


@pytest.mark.parametrize(
    ("goal", "error", "how"),
    [
        ("ndcg=1", None, "finished"),
        ("ndcg=1,reward_of_an_end:ones=1", None, "stopped by SIGTERM"),
        ("reward_of_a_failure:fails=1", "reward 'reward_of_a_failure:fails' failed with ValueError", "failed: {}"),
    ],
)
def test_how_a_run_ended_stands_in_its_folder(
    goal: str, error: str | None, how: str, tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reward_of_an_end.py").write_text(TERMINATES_AT_THE_FIFTH_CALL)
    (tmp_path / "reward_of_a_failure.py").write_text(
        TERMINATES_AT_THE_FIFTH_CALL + "\ndef fails(slates, *_):\n    if next(calls) == 5:\n"
        "        raise ValueError('odd')\n    return np.ones(slates.shape)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = tune("--steps", 3 if goal == "ndcg=1" else 100, "--goal", goal)
    end = str(read_end(tmp_path / "run"))
    assert end.startswith(how.format(error))
    if error is not None:
        assert error in " ".join(result.output.split())


def test_a_run_whose_best_is_the_student_says_so_in_its_last_line_and_its_report(
    tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reward_of_a_tie.py").write_text(
        "import numpy as np\n\ndef ones(slates, *_):\n    return np.ones(slates.shape)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = tune("--steps", 3, "--goal", "reward_of_a_tie:ones=1", "--report", tmp_path / "report.md")
    assert result.exit_code == 0, result.output
    no_better = "No policy was better than the student"
    assert result.output.splitlines()[-1].startswith(no_better)
    assert no_better in " ".join((tmp_path / "report.md").read_text().split())


def test_a_sweep_varies_the_goal_of_the_file_and_a_resumed_one_that_of_its_runs(tune: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('goal = "ndcg=1,pcount=2"\n')
    result = tune("--steps", 1, "--sweep", "ild=0,2", "--config", tmp_path / "config.toml")
    assert result.exit_code == 0, result.output
    folders = ["ndcg=1,pcount=2,ild=0", "ndcg=1,pcount=2,ild=2"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == folders
    result = tune("--steps", 2, "--sweep", "ild=0,2", "--on-existing", "resume", student=None)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == folders
    assert [config_of(tmp_path / "run" / name)["steps"] for name in folders] == [2, 2]


def test_a_sweep_varies_the_goal_that_is_given(tune: Run, tmp_path: Path) -> None:
    assert tune("--steps", 1, "--sweep", "pcount=1", "--set", "goal='ndcg=2,pcount=3'").exit_code == 0
    assert config_of(tmp_path / "run/ndcg=2,pcount=1")["goal"] == "ndcg=2,pcount=1"


def test_a_replay_has_the_reward_model_of_the_recording(
    tune: Run, run: Run, world: Any, make_network: Callable[..., Any], tmp_path: Path
) -> None:
    hashes = {"catalogue_hash": world.split.catalogue.hash, "split_hash": world.split.hash}

    def save(seed: int) -> None:
        files = make_network("sasrec", world.split.catalogue.n_items, seed=seed).to_files()
        save_policy(tmp_path / "model", files, step=1, config={}, **hashes)

    save(0)
    asked = ("--goal", "expected_ndcg=1", "--reward-model", tmp_path / "model")
    assert tune("--steps", 2, "--record", *asked).exit_code == 0
    save(1)
    result = run("tune", "--replay", tmp_path / "run", "--run-dir", tmp_path / "again")
    assert result.exit_code == 2
    assert "was begun with reward model" in result.output
    assert not (tmp_path / "again").exists()


def test_a_sweep_tunes_once_a_weight_and_draws_the_front(tune: Run, tmp_path: Path) -> None:
    result = tune("--steps", 1, "--sweep", "ild=0,2")
    assert result.exit_code == 0, result.output
    folders = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert folders == ["ndcg=1,ild=0", "ndcg=1,ild=2"]
    assert [config_of(tmp_path / "run" / name)["goal"] for name in folders] == folders
    assert (tmp_path / "run/front.png").stat().st_size > 0
