"""A full disk: nothing is learned that can't be published, and processes wait until there is room."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.fleet import service
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.service import Orders
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport import names
from gptrec_rl.transport.entry import DiskFullError
from gptrec_rl.transport.hub import Transport


def fill(patch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", refuse)


def test_an_optimiser_learns_nothing_until_its_policy_is_published(
    world: Split,
    student: GPTRec,
    make_config: Callable[..., TuneConfig],
    make_transport: Callable[..., Transport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, transport = make_config(steps=9), make_transport(capacity=8)
    optimiser = Optimiser(student, world, config, transport, "me")
    optimiser.start()
    generator = Generator(world, config, transport)
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
    assert [policy.step for policy in transport.store.policies()] == [0, 2]


def test_a_validator_marks_its_best_when_there_is_room(
    world: Split,
    student: GPTRec,
    make_config: Callable[..., TuneConfig],
    make_transport: Callable[..., Transport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, transport = make_config(), make_transport()
    Optimiser(student, world, config, transport, "me").start()
    validator = Validator(world, config, transport)
    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(DiskFullError):
            validator.step()
    assert validator.step() is not None
    assert transport.store.best() is not None


def test_a_process_waits_for_room_and_says_so_unless_it_is_to_stop(
    world: Split,
    make_config: Callable[..., TuneConfig],
    make_transport: Callable[..., Transport],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "FULL_DISK_S", 0.01)
    transport, stop = make_transport(), threading.Event()
    generator, orders = Generator(world, make_config(), transport), Orders(stop, transport.control)
    with orders.full_disk_waited_for(generator):
        raise DiskFullError("no room")
    assert "no room" in caplog.text
    generator.report()
    assert transport.metrics.read()[0][-1].values[names.WAIT_DISK] > 0
    stop.set()
    with pytest.raises(DiskFullError), orders.full_disk_waited_for(generator):
        raise DiskFullError("no room")
