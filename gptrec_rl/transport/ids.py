"""Identities of processes: ids that are never given twice in a run, from which their random streams are seeded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

import redis

from gptrec_rl.transport.keys import key


@dataclass(frozen=True)
class Identity:
    """Who a process is.

    Attributes:
        id: from 1, no other process of the run ever has it.
        start_count: how often a process of this name was started, this time included.
    """

    id: int
    start_count: int


class IdAllocator(ABC):
    """Hands out identities."""

    @abstractmethod
    def allocate(self, name: str) -> Identity:
        """Return a new identity for a process that has just started under this name (``generator-3``)."""


class MemoryIds(IdAllocator):
    """Identities within one process."""

    def __init__(self) -> None:
        self._starts: Counter[str] = Counter()

    def allocate(self, name: str) -> Identity:
        """Return a new identity."""
        self._starts[name] += 1
        return Identity(self._starts.total(), self._starts[name])


class RedisIds(IdAllocator):
    """Identities among all processes that share a Redis."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._client = client
        self._last_id = key(run_id, "ids")
        self._starts = key(run_id, "starts")

    def allocate(self, name: str) -> Identity:
        """Return a new identity."""
        with self._client.pipeline() as pipeline:
            pipeline.incr(self._last_id)
            pipeline.hincrby(self._starts, name, 1)
            new_id, start_count = pipeline.execute()
        return Identity(new_id, start_count)
