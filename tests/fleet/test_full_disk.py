"""A full disk: nothing is learned that can't be published, and processes wait until there is room."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from gptrec_rl.fleet.orders import Orders
from gptrec_rl.fleet.processes import StopEvent
from gptrec_rl.store.manifest import DiskFullError
from gptrec_rl.telemetry import names

if TYPE_CHECKING:
    from tests.fixtures.fleet import MakeFleet


def fill(patch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", refuse)


def test_an_optimiser_learns_nothing_until_its_policy_is_published(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(steps=9)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    for _ in range(4):
        generator.step()
    assert optimiser.step() is not None
    with monkeypatch.context() as patch:
        fill(patch)
        for _ in range(3):
            with pytest.raises(DiskFullError):
                optimiser.step()
        assert optimiser.learner.step == 2
    assert optimiser.step() is not None
    assert optimiser.learner.step == 3
    assert [policy.step for policy in fleet.transport.store.policies()] == [0, 2]
    assert [policy.version for policy in fleet.transport.store.policies()] == [0, 1]  # three refusals outdate nothing


def test_a_validator_marks_its_best_when_there_is_room(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = make_fleet()
    fleet.start_optimiser()
    validator = fleet.validator()
    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(DiskFullError):
            validator.step()
    assert validator.step() is not None
    assert fleet.transport.store.best() is not None


def test_a_process_waits_for_room_and_says_so_unless_it_is_to_stop(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gptrec_rl.fleet.orders.STORAGE_S", 0.01)
    fleet, stop = make_fleet(), StopEvent()
    generator, orders = fleet.generator(), Orders(stop, fleet.transport.control)
    for _ in range(2):
        with orders.storage_waited_for(generator):
            raise DiskFullError("no room")
    with orders.storage_waited_for(generator):
        pass
    assert [r.message for r in caplog.records] == ["waiting for storage: no room", "storage works again"]
    generator.report()
    assert fleet.transport.metrics.read()[0][-1].values[names.WAIT_DISK] > 0
    stop.set()
    with pytest.raises(DiskFullError), orders.storage_waited_for(generator):
        raise DiskFullError("no room")
