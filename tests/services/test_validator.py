"""The validator's last score, which is also worth waiting for when everything ends."""

from __future__ import annotations

import pytest

from gptrec_rl.fleet import orders
from gptrec_rl.store.manifest import DiskFullError
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.telemetry.stream import MemoryMetrics
from gptrec_rl.transport.control import MemoryControl
from services import validator
from services.validator import _score_the_last


class CrampedValidator:
    """Finds no room so many times."""

    def __init__(self, n_times: float) -> None:
        self.n_times = n_times
        self.n_scored = 0
        self.reporter = Reporter(MemoryMetrics(), "validator", 0)

    def step(self) -> float:
        self.n_times -= 1
        if self.n_times >= 0:
            raise DiskFullError("no room")
        self.n_scored += 1
        return 0.0


def test_the_last_policy_is_scored_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "STORAGE_S", 0.01)
    cramped = CrampedValidator(3)
    _score_the_last(cramped, MemoryControl())  # type: ignore[arg-type]
    assert cramped.n_scored == 1


def test_room_for_the_last_score_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "STORAGE_S", 0.01)
    monkeypatch.setattr(validator, "LAST_ROOM_S", 0.1)
    with pytest.raises(DiskFullError):
        _score_the_last(CrampedValidator(float("inf")), MemoryControl())  # type: ignore[arg-type]
