"""The whole fleet as its user starts it: real processes over the embedded Redis, on a made-up world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.trained_models import STORE, load_policy, save_policy

pytestmark = pytest.mark.integration

GPTREC_RL = (sys.executable, "-c", "from gptrec_rl.cli import main; main()")
ROLES = ("optimiser", "validator", "generator")
SMALL_FLEET = (
    "fleet.n_histories=4",
    "fleet.n_lists=4",
    "fleet.publish_every=5",
    "fleet.checkpoint_every_s=0.5",
    "fleet.validator_share=0.9",
    "precision=fp32",
)
TIMEOUT_S = 240.0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, make_policy: Callable[..., GPTRec]) -> Path:
    """Return a folder with data.npz and a student."""
    folder = tmp_path_factory.mktemp("inputs")
    synthetic.generate(n_users=60, n_items=48, mean_length=12).save(folder / "data.npz")
    split = Split.of(Interactions.load(folder / "data.npz"))
    files = make_policy(split.catalogue.n_items, history_length=8, slate_length=10).to_files()
    hashes = {"catalogue_hash": split.catalogue.hash, "split_hash": split.hash}
    save_policy(folder / "student", files, step=0, config={}, **hashes)
    return folder


@pytest.fixture
def tune(inputs: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a starter of `gptrec-rl tune` on the small world; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(run_dir: Path, *options: str) -> subprocess.Popen[str]:
        settings = [word for setting in SMALL_FLEET for word in ("--set", setting)]
        given = ("--data", str(inputs / "data.npz"), "--student", str(inputs / "student"), "--run-dir", str(run_dir))
        log = (tmp_path / "tune.log").open("a")
        # What the shell says of other data is not for the children of a run that was given its own.
        environment = {**os.environ, "GPTREC_DATA": "elsewhere.npz"}
        command = [*GPTREC_RL, "tune", *given, *settings, *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it took too long until {what}"
        time.sleep(0.05)


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def child_of_role(process: subprocess.Popen[str], role: str) -> psutil.Process | None:
    """Return the process of a role, None while it isn't there."""
    for child in children_of(process):
        try:
            if f"services.{role}" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def store_of(run_dir: Path) -> CheckpointStore:
    return CheckpointStore(str(run_dir / STORE))


def assert_it_is_complete(run_dir: Path, inputs: Path, steps: int) -> None:
    """Check what a run that got to its end leaves behind."""
    store = store_of(run_dir)
    latest, best = store.latest_policy(), store.best()
    assert latest is not None
    assert best is not None
    assert latest.step == store.learner_states()[-1].step == steps
    assert (run_dir / STORE / "BEST").exists()
    validations = lines_of(run_dir / "validations.jsonl")
    assert latest.version in [line["values"]["val/version"] for line in validations]
    assert best[1] == max(line["values"]["val/reward"] for line in validations)
    last = [line for line in lines_of(run_dir / "metrics.jsonl") if line["role"] == "optimiser"][-1]
    ledger = {name.removeprefix("cache/"): n for name, n in last["values"].items() if name.startswith("cache/")}
    assert ledger["generated"] == sum(ledger[s] for s in ("waiting", "drawn", "evicted", "stale", "rejected")) > 0
    assert last["step"] == steps
    assert last["values"]["run/progress"] == 1.0
    catalogue = Interactions.load(inputs / "data.npz").catalogue
    assert load_policy(run_dir, catalogue).slate_length == 10


def test_a_fleet_of_processes_gets_to_its_end_and_leaves_none_behind(
    tune: Callable[..., subprocess.Popen[str]], inputs: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = tune(run_dir, "--steps", "23", "--generators", "2")
    wait_until(lambda: child_of_role(process, "validator") is not None, "the fleet runs")
    children = children_of(process)
    assert process.wait(TIMEOUT_S) == 0, (tmp_path / "tune.log").read_text()
    assert are_gone(children)
    assert_it_is_complete(run_dir, inputs, steps=23)
    assert {(line["role"], line["id"]) for line in lines_of(run_dir / "metrics.jsonl")} >= {
        ("generator", 0),
        ("generator", 1),
        ("optimiser", 0),
        ("validator", 0),
    }
    assert "Best of" in (tmp_path / "tune.log").read_text()


def test_each_role_killed_once_on_the_way_still_gets_there(
    tune: Callable[..., subprocess.Popen[str]], inputs: Path, tmp_path: Path
) -> None:
    run_dir, steps = tmp_path / "run", 200
    process = tune(run_dir, "--steps", str(steps), "--set", "fleet.n_histories=16")
    wait_until(lambda: len(store_of(run_dir).learner_states()) > 0, "there is a state to resume from")
    for role in ROLES:
        victim = child_of_role(process, role)
        assert victim is not None, f"no {role} runs; the run was over too soon"
        victim.send_signal(signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == 0, (tmp_path / "tune.log").read_text()
    assert_it_is_complete(run_dir, inputs, steps)
    for role in ROLES:
        assert "attempt 2" in (run_dir / "logs" / f"{role}-0.log").read_text()
    assert store_of(run_dir).policies()[-1].token == 2


def test_a_stopped_run_and_one_killed_outright_leave_no_process_and_go_on_when_resumed(
    tune: Callable[..., subprocess.Popen[str]], inputs: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"

    process = tune(run_dir, "--max-minutes", "30")
    wait_until(lambda: len(store_of(run_dir).policies()) > 2, "something is learned")
    children = children_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 128 + signal.SIGTERM
    assert are_gone(children)
    assert "is killed" not in (tmp_path / "tune.log").read_text()  # all ended by themselves
    stopped_at = store_of(run_dir).learner_states()[-1].step
    assert stopped_at == store_of(run_dir).policies()[-1].step > 0

    process = tune(run_dir, "--on-existing", "resume")
    wait_until(lambda: store_of(run_dir).learner_states()[-1].step > stopped_at, "it goes on")
    children = children_of(process)
    process.kill()
    process.wait()
    wait_until(lambda: are_gone(children), "nobody is left")

    killed_at = store_of(run_dir).learner_states()[-1].step
    process = tune(run_dir, "--on-existing", "resume", "--steps", str(killed_at + 10))
    assert process.wait(TIMEOUT_S) == 0, (tmp_path / "tune.log").read_text()
    assert_it_is_complete(run_dir, inputs, steps=killed_at + 10)
    tokens = [entry.token for entry in store_of(run_dir).learner_states()]
    assert tokens[-1] == 3
    assert (run_dir / "report").is_dir()


def test_a_recorded_fleet_whose_optimiser_was_killed_is_replayed_to_the_bit(
    tune: Callable[..., subprocess.Popen[str]], inputs: Path, tmp_path: Path
) -> None:
    run_dir, again, steps = tmp_path / "run", tmp_path / "again", 80
    process = tune(run_dir, "--steps", str(steps), "--generators", "2", "--record", "--set", "fleet.n_histories=16")
    wait_until(lambda: len(store_of(run_dir).learner_states()) > 0, "there is a state to resume from")
    victim = child_of_role(process, "optimiser")
    assert victim is not None, "no optimiser runs; the run was over too soon"
    victim.send_signal(signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == 0, (tmp_path / "tune.log").read_text()
    assert len(list((run_dir / "draws").iterdir())) == 2
    command = [*GPTREC_RL, "tune", "--replay", run_dir, "--run-dir", again, "--data", inputs / "data.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert f"Replayed {steps} steps" in done.stdout
    recorded, replayed = (store_of(folder).policies()[-1] for folder in (run_dir, again))
    assert recorded.files == replayed.files
