from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from gptrec_rl.cli.service import start_service
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.fleet.orders import Orders
from gptrec_rl.fleet.processes import TERMINATED, StopEvent
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.ending import read_end
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.telemetry.stream import MemoryMetrics
from gptrec_rl.transport.control import MemoryControl


class Worker:
    """Reports and does nothing else."""

    def __init__(self) -> None:
        self.stream = MemoryMetrics()
        self.reporter = Reporter(self.stream, "generator", 0, every_s=0.01)

    def report(self) -> None:
        self.reporter.report(1, 1)


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl()


def test_the_error_that_ends_a_process_stands_in_the_run_folder_and_in_no_other(tmp_path: Path) -> None:
    def start() -> None:
        with pytest.raises(SystemExit) as ended, start_service(tmp_path, None):
            pytest.fail("it can't be opened")
        assert ended.value.code == 2

    start()
    assert list(tmp_path.iterdir()) == []
    write_config(TuneConfig(data="/nowhere/data.npz"), tmp_path / "config.toml")
    start()
    assert "failed: data file /nowhere/data.npz is not there" in str(read_end(tmp_path))


def test_work_goes_on_until_a_signal_which_is_no_end_of_its_own(control: MemoryControl) -> None:
    stop = StopEvent()
    orders = Orders(stop, control)
    assert orders.go_on(Worker())
    stop.set()
    assert not orders.go_on(Worker())
    assert orders.exit_code == TERMINATED


def test_a_stop_that_is_wished_ends_with_code_0_so_that_nobody_starts_it_again(control: MemoryControl) -> None:
    orders = Orders(StopEvent(), control)
    control.stop()
    assert not orders.go_on(Worker())
    assert orders.exit_code == 0


def test_a_stop_before_its_start_is_not_meant(control: MemoryControl) -> None:
    control.stop()
    assert Orders(StopEvent(), control).go_on(Worker())


@pytest.mark.parametrize("ends_by", ["resume", "stop", "signal"])
def test_a_paused_process_waits_and_reports_that_it_does(
    control: MemoryControl, monkeypatch: pytest.MonkeyPatch, ends_by: str
) -> None:
    monkeypatch.setattr("gptrec_rl.fleet.orders.PAUSED_S", 0.01)
    stop, worker, went_on = StopEvent(), Worker(), list[bool]()
    orders = Orders(stop, control)
    control.pause()
    waiting = threading.Thread(target=lambda: went_on.append(orders.go_on(worker)))
    waiting.start()
    deadline = time.monotonic() + 300
    while not worker.stream.last(1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert went_on == []
    {"resume": control.resume, "stop": control.stop, "signal": stop.set}[ends_by]()
    waiting.join(timeout=300)
    assert went_on == [ends_by == "resume"]
    assert worker.stream.last(1)[0].values[names.WAIT_RESUME] > 0
