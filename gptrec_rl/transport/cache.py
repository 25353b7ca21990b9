"""The recommendation cache (section 3.3 of the paper): the last M rollout batches of a run.

Generators put, the optimiser draws. Every batch ever put is in exactly one column of the ledger, whoever dies when.
Here: the interface and what its two kinds share.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gptrec_rl.transport.messages import MessageError, RolloutBatch, decode, encode

MAX_REPORTED = 1000
"""Reasons for a rejection that are logged; each is kept, in order to be said once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheLimits:
    """Bounds on what is kept and how it is used.

    Attributes:
        capacity: M, the number of batches kept, and of waiting ones at which generators pause.
        max_staleness: published versions between a batch's policy and the newest; None is unbounded.
        max_reuse: how often one batch is drawn; None is unbounded.
    """

    capacity: int = 8
    max_staleness: int | None = 4
    max_reuse: int | None = 1

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity is {self.capacity}; a cache holds at least 1 batch")
        if self.max_staleness is not None and self.max_staleness < 0:
            raise ValueError(f"max_staleness is {self.max_staleness}; give 0 or more, or None for no bound")
        if self.max_reuse is not None and self.max_reuse < 1:
            raise ValueError(f"max_reuse is {self.max_reuse}; give 1 or more, or None for no bound")


@dataclass(frozen=True)
class Ledger:
    """How many batches are where; ``generated == waiting + drawn + evicted + stale + rejected``.

    Attributes:
        generated: batches that entered the cache.
        waiting: never drawn, and may still be.
        drawn: drawn at least once, each counted once.
        evicted: pushed out by newer ones without ever being drawn.
        stale: outdated by newer policies without ever being drawn.
        rejected: unreadable, of another run or data, from learner steps that were lost, or refused by the optimiser or
            of a generator in quarantine, and never drawn.
        repeated: sends of a batch that had already come; not part of the sum.
    """

    generated: int = 0
    waiting: int = 0
    drawn: int = 0
    evicted: int = 0
    stale: int = 0
    rejected: int = 0
    repeated: int = 0

    @property
    def balances(self) -> bool:
        """Whether every batch is in exactly one column."""
        return self.generated == self.waiting + self.drawn + self.evicted + self.stale + self.rejected


@dataclass(frozen=True)
class Head:
    """What the cache itself needs to know of a batch, beside its bytes."""

    generator_id: int
    sequence_number: int
    token: int
    policy_version: int
    learner_step: int

    @classmethod
    def of(cls, batch: RolloutBatch) -> Head:
        """Return the head of a batch."""
        return cls(batch.generator_id, batch.sequence_number, batch.token, batch.policy_version, batch.learner_step)


class RecommendationCache(ABC):
    """The last M batches of a run that may still be learnt from, with a ledger of all others.

    Args:
        run_id: batches of another run are rejected.
        limits: see `CacheLimits`.
        catalogue_hash: batches of another catalogue are rejected.
        split_hash: batches of another split are rejected.
    """

    def __init__(self, run_id: str, limits: CacheLimits, catalogue_hash: str, split_hash: str) -> None:
        self.limits = limits
        self._origin = {"run_id": run_id, "catalogue_hash": catalogue_hash, "split_hash": split_hash}
        self._read_batches: dict[str, RolloutBatch] = {}
        self._reported: set[str] = set()

    def put(self, batch: RolloutBatch) -> bool:
        """Add a batch; the oldest goes when there are more than M. Sequence numbers of a generator only grow.

        Returns:
            False for a batch that had already come (a repeated send), which is counted apart and dropped.
        """
        return self.put_encoded(Head.of(batch), encode(batch))

    def draw(
        self, rng: np.random.Generator, inspect: Callable[[RolloutBatch], None] = lambda batch: None
    ) -> RolloutBatch | None:
        """Return one of the batches, each as likely, and count the draw; None when there is none to learn from.

        Args:
            rng: decides which.
            inspect: called with each batch once, when it is first read; raises `MessageError` for one to reject.
        """
        for entry_id, data in self._new_entries():
            try:
                batch = self._accept(data)
                inspect(batch)
                self._read_batches[entry_id] = batch
            except MessageError as error:
                self._reject(entry_id)
                if str(error) not in self._reported and len(self._reported) < MAX_REPORTED:
                    self._reported.add(str(error))
                    logger.warning("batch rejected (said once, all are counted): %s", error)
        picked, alive = self._pick(rng.random(), list(self._read_batches))
        drawn = self._read_batches.get(picked) if picked else None
        self._read_batches = {entry_id: self._read_batches[entry_id] for entry_id in alive}
        return drawn

    def _accept(self, data: bytes) -> RolloutBatch:
        batch = decode(data)
        for name, expected in self._origin.items():
            if getattr(batch, name) != expected:
                raise MessageError(
                    f"generator {batch.generator_id} works on {name} {getattr(batch, name)!r}, not {expected!r}"
                )
        return batch

    @abstractmethod
    def put_encoded(self, head: Head, data: bytes) -> bool:
        """Add a batch that is already encoded; see `put`."""

    @abstractmethod
    def room(self) -> bool:
        """Return whether a generator should make another batch: fewer than M are waiting."""

    @abstractmethod
    def is_stale(self, version: int) -> bool:
        """Return whether what a policy of this version writes would be outdated already."""

    @abstractmethod
    def advance(self, token: int, version: int, step: int) -> None:
        """Tell the cache of the newest policy: the optimiser does so after publishing, and first of all on its start.

        Stale batches leave at once. The first call with a larger token says at which step that optimiser resumed:
        batches of smaller tokens from beyond it are rejected. A call with a smaller token than the largest is ignored.
        """

    @abstractmethod
    def quarantine(self, generator_id: int) -> None:
        """Reject all batches of a generator: those that are here and those to come."""

    @abstractmethod
    def quarantined(self) -> frozenset[int]:
        """Return the ids of the generators in quarantine."""

    @abstractmethod
    def ledger(self) -> Ledger:
        """Return the ledger."""

    @abstractmethod
    def _new_entries(self) -> Iterator[tuple[str, bytes]]:
        """Yield ids and bytes of the entries that this reader has not had, oldest first."""

    @abstractmethod
    def _reject(self, entry_id: str) -> None:
        """Take an entry out and count it as rejected."""

    @abstractmethod
    def _pick(self, uniform: float, entry_ids: list[str]) -> tuple[str | None, list[str]]:
        """Draw one of these entries at the place `uniform` (0..1), in one atomic call.

        Returns:
            The drawn entry, None when none of them is left, and those of the entries that are left, in their order.
        """
