"""The report of a fleet of containers: it waits for the end of this budget, ends the others and shows the table."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptrec_rl.config import TuneConfig
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.fleet.processes import StopEvent
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.runs.report import _stop_latecomers, _wait_for_the_end
from gptrec_rl.runs.run_folder import PREPARED, Run, prepare_run
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.control import MemoryControl, RedisControl
from gptrec_rl.transport.embedded import EmbeddedRedis
from services.report import main

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tmp_path: Path, make_policy: Callable[..., GPTRec]) -> Run:
    """Return a run of two steps that has ended."""
    from gptrec_rl.store.trained_models import save_policy

    world = generate(n_users=40, n_items=60, mean_length=10)
    world.save(tmp_path / "data.npz")
    policy = make_policy(60, history_length=8, slate_length=10)
    student = tmp_path / "student"
    hashes = {"catalogue_hash": world.catalogue.hash, "split_hash": ""}
    save_policy(student, policy.to_files(), step=0, config={}, **hashes)
    fleet = {"n_histories": 4, "n_lists": 3, "publish_every": 1, "heartbeat_s": 0.5}
    config = TuneConfig.model_validate(
        {"data": str(tmp_path / "data.npz"), "steps": 2, "precision": "fp32", "fleet": fleet}
    )
    run = prepare_run(tmp_path / "tuned", config, student, "fail")
    records = RunRecords(run.folder)
    serial = SerialFleet.of(run.student(), run.split, run.config, run.memory_transport())
    serial.run(lambda record: records.append([record], records.cursor))
    return run


def test_it_shows_the_table_draws_the_picture_and_ends_the_others(run: Run, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as url:
        done = CliRunner().invoke(main, ["--run-dir", str(tmp_path), "--redis-url", url], catch_exceptions=False)
        assert RedisControl(connect(url), run.config.run_id).wishes().n_stops == 2
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^(Markov chain|student|tuned: ndcg=1,ild=1) +((?: *\d\.\d{4}){3})$", done.output, re.MULTILINE)
    assert [name for name, _ in rows] == ["Markov chain", "student", "tuned: ndcg=1,ild=1"]
    assert "2 steps in" in done.output
    assert (tmp_path / "trade-off.png").read_bytes().startswith(b"\x89PNG")


def test_the_end_of_an_earlier_budget_is_not_the_end(run: Run) -> None:
    (run.folder / PREPARED).write_text(str(run.memory_transport().store.highest_token()))
    control, waited = MemoryControl(), threading.Event()

    def wait() -> None:
        _wait_for_the_end(run, control, StopEvent())
        waited.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not waited.wait(2.5)
    control.stop()
    assert waited.wait(300)


def test_who_is_heard_after_the_stop_is_told_again(run: Run) -> None:
    control, records = MemoryControl(), RunRecords(run.folder)
    ending = threading.Thread(target=_stop_latecomers, args=[run, control, StopEvent()])
    ending.start()
    deadline = time.monotonic() + 300
    while control.wishes().n_stops < 3:
        records.append([MetricRecord("generator", 0, 1, 2, time.time(), {})], records.cursor)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ending.join(300)
    assert not ending.is_alive()
