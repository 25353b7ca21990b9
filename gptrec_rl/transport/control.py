"""What the user wants of a running fleet: how many generators, a pause, a stop; `gptrec-rl fleet` says it.

The Supervisor follows the number of generators; every process pauses and stops by itself, with or without one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from gptrec_rl.transport.keys import key

MAX_GENERATORS = 1024
"""The Supervisor's generators have smaller numbers in logs and metrics, all others larger ones."""
MAX_DIGITS = 9


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run.

    Attributes:
        n_generators: how many there shall be; None leaves that to whoever starts them.
        is_paused: whether nothing is to be sampled or learned for now; processes stay.
        n_stops: how often the run was told to stop. A process ends when this grows, so one that is started later,
            to resume the run, is not told.
    """

    n_generators: int | None = None
    is_paused: bool = False
    n_stops: int = 0


class Control(ABC):
    """The wishes for one run."""

    @abstractmethod
    def wishes(self) -> Wishes:
        """Return what is wanted now."""

    def start(self, n_generators: int) -> None:
        """Begin or resume a run with so many generators: earlier ones and a pause are forgotten."""
        self._set({"generators": n_generators, "paused": 0})

    def scale(self, n_generators: int) -> None:
        """Want so many generators."""
        self._set({"generators": n_generators})

    def pause(self) -> None:
        """Want nothing to be sampled or learned."""
        self._set({"paused": 1})

    def resume(self) -> None:
        """Want the run to go on after a pause."""
        self._set({"paused": 0})

    @abstractmethod
    def stop(self) -> None:
        """Want all processes that are at work now to end, as SIGTERM does: the run can be resumed."""

    @abstractmethod
    def _set(self, wishes: Mapping[str, int]) -> None:
        """Replace some of the wishes."""


@dataclass
class MemoryControl(Control):
    """The wishes for a fleet in one process."""

    _wishes: dict[str, int] = field(default_factory=dict)

    def wishes(self) -> Wishes:
        """Return what is wanted now."""
        return _read(self._wishes)

    def stop(self) -> None:
        """Want all to end."""
        self._wishes["stops"] = self._wishes.get("stops", 0) + 1

    def _set(self, wishes: Mapping[str, int]) -> None:
        self._wishes.update(wishes)


# KEYS: control, the cache's ledger. HDEL of what isn't there comes first: after it Redis carries a script out even if
# its memory is full, and a fleet that waits for memory is one that somebody wants to pause, scale down or stop.
_WITHOUT_MEMORY = "redis.call('HDEL', KEYS[1], '')\n"
_EXPIRE_WITH_THE_REST = """
local left = redis.call('PTTL', KEYS[2])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
"""
_SET = _WITHOUT_MEMORY + "redis.call('HSET', KEYS[1], unpack(ARGV))" + _EXPIRE_WITH_THE_REST
_STOP = _WITHOUT_MEMORY + "redis.call('HINCRBY', KEYS[1], 'stops', 1)" + _EXPIRE_WITH_THE_REST


class RedisControl(Control):
    """The wishes for a fleet of processes that share a Redis."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._client = client
        self._keys = [key(run_id, "control"), key(run_id, "cache:ledger")]
        self._set_fields, self._add_stop = map(client.register_script, (_SET, _STOP))

    def wishes(self) -> Wishes:
        """Return what is wanted now; what is no number within its bounds counts as not wished."""
        fields: Any = self._client.hgetall(self._keys[0])
        return _read({name.decode(errors="replace"): _number(text) for name, text in fields.items()})

    def stop(self) -> None:
        """Want all to end."""
        self._add_stop(keys=self._keys)

    def _set(self, wishes: Mapping[str, int]) -> None:
        self._set_fields(keys=self._keys, args=[part for wish in wishes.items() for part in wish])


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else 0


def _read(fields: Mapping[str, int]) -> Wishes:
    n_generators = fields.get("generators", 0)
    is_sensible = 0 < n_generators <= MAX_GENERATORS
    return Wishes(n_generators if is_sensible else None, fields.get("paused", 0) == 1, fields.get("stops", 0))
