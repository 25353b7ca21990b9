from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import REPORT_EVERY_S, Reporter
from gptrec_rl.telemetry.stream import MemoryMetrics, MetricRecord


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def without_process(record: MetricRecord) -> dict[str, float]:
    return {name: value for name, value in record.values.items() if not name.startswith("process/")}


def test_counts_become_rates_values_means_and_waiting_a_share() -> None:
    clock, stream = Clock(), MemoryMetrics()
    reporter = Reporter(stream, "generator", 3, clock)
    reporter.count("speed/lists_per_s", 6)
    reporter.count("speed/lists_per_s", 4)
    reporter.observe({"reward/ndcg": 0.25})
    reporter.observe({"reward/ndcg": 0.75, "reward/ild": 0.5})
    reporter.waited(0.5, names.WAIT_ROOM, names.LIMIT_PACING)
    reporter.waited(0.25, names.WAIT_ROOM, names.LIMIT_PACING)
    reporter.waited(0.25, names.WAIT_POLICY)
    clock.now += 4
    reporter.report(token=2, step=7, extra={"cache/waiting": 5.0})
    (record,), _ = stream.read()
    assert (record.role, record.id, record.token, record.step) == ("generator", 3, 2, 7)
    assert without_process(record) == {
        "speed/lists_per_s": 2.5,  # (6 + 4) / 4 s
        "reward/ndcg": 0.5,  # (0.25 + 0.75) / 2
        "reward/ild": 0.5,
        names.WAIT_SHARE: 0.25,  # 1 s of 4
        names.WAIT_ROOM: 0.1875,  # 0.75 s of 4
        names.LIMIT_PACING: 0.1875,
        names.WAIT_POLICY: 0.0625,
        "cache/waiting": 5.0,
    }


def test_each_report_starts_from_nothing() -> None:
    clock, stream = Clock(), MemoryMetrics()
    reporter = Reporter(stream, "optimiser", 0, clock)
    reporter.count("speed/steps_per_s", 3)
    reporter.waited(9, names.WAIT_BATCHES)
    clock.now += 1
    reporter.report(1, 1)
    clock.now += 2
    reporter.count("speed/steps_per_s", 3)
    reporter.report(1, 2)
    first, second = stream.read()[0]
    assert without_process(first) == {"speed/steps_per_s": 3.0, names.WAIT_SHARE: 1.0, names.WAIT_BATCHES: 1.0}
    assert without_process(second) == {"speed/steps_per_s": 1.5, names.WAIT_SHARE: 0.0}


def test_a_report_is_due_every_few_seconds() -> None:
    clock = Clock()
    reporter = Reporter(MemoryMetrics(), "validator", 0, clock)
    clock.now += REPORT_EVERY_S - 0.1
    assert not reporter.is_due
    clock.now += 0.1
    assert reporter.is_due
    reporter.report(0, 0)
    assert not reporter.is_due


def test_a_report_at_once_divides_by_no_zero() -> None:
    clock, stream = Clock(), MemoryMetrics()
    reporter = Reporter(stream, "validator", 0, clock)
    reporter.report(0, 0)
    assert stream.read()[0][0].values[names.WAIT_SHARE] == pytest.approx(0.0)


def test_a_report_has_the_memory_of_the_process_and_the_cores_that_it_used() -> None:
    stream = MemoryMetrics()
    wall, processor = time.monotonic(), time.process_time()
    reporter = Reporter(stream, "generator", 0)
    ballast = np.ones(20_000_000, dtype=np.uint8)
    busy_since, until = time.monotonic(), time.process_time() + 0.2
    while time.process_time() < until:
        pass
    busy_s = time.monotonic() - busy_since
    reporter.report(1, 1)
    values = stream.read()[0][0].values
    assert values[names.PROCESS_MEMORY] == pytest.approx(psutil.Process().memory_info().rss / 1e6, abs=10)
    assert values[names.PROCESS_MEMORY] > ballast.nbytes / 1e6
    # Whenever others have the cores: at least 0.2 s of a processor in all of this time, at most all in the busy part.
    least, most = 0.2 / (time.monotonic() - wall), (time.process_time() - processor) / busy_s
    assert least <= values[names.PROCESS_CORES] <= most


def test_long_work_is_said_to_be_alive_and_endless_work_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MemoryMetrics()
    reporter = Reporter(stream, "optimiser", 0, every_s=0.01)

    def n_heard() -> int:
        return len(stream.last(10**6))

    with reporter.kept_alive():
        time.sleep(0.1)
        assert n_heard() == 0  # before its first report it is being started
        reporter.report(3, 7)
        wait_until(lambda: n_heard() >= 5)
        alive = stream.last(1)[0]
        assert (alive.token, alive.step, alive.values) == (3, 7, {})
        monkeypatch.setattr("gptrec_rl.telemetry.reporter.LONGEST_WORK_S", 0.0)
        time.sleep(0.1)
        before = n_heard()
        time.sleep(0.1)
        assert n_heard() == before
        monkeypatch.setattr("gptrec_rl.telemetry.reporter.LONGEST_WORK_S", 300.0)
        assert reporter.is_due
        wait_until(lambda: n_heard() > before)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
