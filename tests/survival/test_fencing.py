"""What takes two processes or a Redis of the Supervisor's own: taking over from a paused optimiser, and its restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from chaos.fleet import Fleet
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.trained_models import STORE
from gptrec_rl.transport.embedded import EmbeddedRedis

pytestmark = pytest.mark.integration

TIMEOUT_S = 600.0


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a prepared run folder; nobody works in it yet."""
    fleet = Fleet(tmp_path)
    fleet.prepare_run()
    return fleet.run_dir


@pytest.fixture
def start(run_dir: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a starter of commands in the run folder; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (run_dir.parent / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command, "--run-dir", str(run_dir)],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.05)


def test_an_optimiser_that_was_paused_past_its_lease_publishes_nothing_more(
    run_dir: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    store = CheckpointStore(str(run_dir / STORE))
    with EmbeddedRedis(run_dir / "redis") as url:
        first = start("first", "-m", "services.optimiser", GPTREC_REDIS_URL=url)
        start("generator", "-m", "services.generator", GPTREC_REDIS_URL=url)
        wait_until(lambda: len(store.policies()) > 2)
        first.send_signal(signal.SIGSTOP)
        old = {entry.folder for entry in store.policies()}
        start("second", "-m", "services.optimiser", GPTREC_REDIS_URL=url)
        wait_until(lambda: store.highest_token() == 2)
        first.send_signal(signal.SIGCONT)
        assert first.wait(TIMEOUT_S) != 0
        newest = store.highest_version()
        wait_until(lambda: store.highest_version() > newest)  # the second one goes on
    assert {entry.folder for entry in store.policies() if entry.token == 1} <= old
    latest = CheckpointStore(str(run_dir / STORE)).latest_policy()
    assert latest is not None
    assert latest.token == 2
    said = (run_dir.parent / "first.log").read_text()
    assert "had token 1 of this run, and the newest is 2" in said or "token 1, but one with 2 is at work" in said


def test_the_supervisor_starts_its_redis_again_when_it_is_killed(
    run_dir: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    program = "from gptrec_rl.cli import main; main()"
    tune = start("tune", "-c", program, "tune", "--on-existing", "resume", "--steps", "60")
    store = CheckpointStore(str(run_dir / STORE))
    wait_until(lambda: store.highest_version() > 0)
    (server,) = (child for child in psutil.Process(tune.pid).children() if "redis-server" in child.name())
    server.kill()
    assert tune.wait(TIMEOUT_S) == 0, (run_dir.parent / "tune.log").read_text()
    assert "Redis ended with code -9; it starts again" in (run_dir.parent / "tune.log").read_text()
    assert store.learner_states()[-1].step == 60
    assert store.highest_token() == 1, "the optimiser didn't wait for Redis"
