"""The recommendation cache in memory: for a fleet in one process, and the model that the Redis kind is held to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count

from gptrec_rl.transport.cache import CacheLimits, Head, Ledger, RecommendationCache
from gptrec_rl.transport.messages import decode, encode

STATE_FILE = "cache.json"


@dataclass
class _Entry:
    head: Head
    data: bytes
    draws: int = 0


class MemoryCache(RecommendationCache):
    """A cache that lives and dies with its process."""

    def __init__(self, run_id: str, limits: CacheLimits, catalogue_hash: str, split_hash: str) -> None:
        super().__init__(run_id, limits, catalogue_hash, split_hash)
        self._entries: dict[str, _Entry] = {}
        self._entry_ids = map(str, count())
        self._counts: Counter[str] = Counter()
        self._last_sent: dict[int, int] = {}
        self._resumed_steps: dict[int, int] = {}
        self._quarantined: set[int] = set()
        self._token = 0
        self._version = 0

    def put_encoded(self, head: Head, data: bytes) -> bool:
        """Add a batch that is already encoded; see `put`."""
        if head.sequence_number <= self._last_sent.get(head.generator_id, -1):
            self._counts["repeated"] += 1
            return False
        self._last_sent[head.generator_id] = head.sequence_number
        self._counts["generated"] += 1
        if self._is_lost(head) or head.generator_id in self._quarantined:
            self._counts["rejected"] += 1
        elif self.is_stale(head.policy_version):
            self._counts["stale"] += 1
        else:
            self._counts["waiting"] += 1
            self._entries[next(self._entry_ids)] = _Entry(head, data)
            if len(self._entries) > self.limits.capacity:
                self._remove(next(iter(self._entries)), "evicted")
        return True

    def room(self) -> bool:
        """Return whether fewer than M batches are waiting."""
        return self._counts["waiting"] < self.limits.capacity

    def is_stale(self, version: int) -> bool:
        """Return whether a policy is more than `max_staleness` versions behind the newest."""
        bound = self.limits.max_staleness
        return bound is not None and self._version - version > bound

    def advance(self, token: int, version: int, step: int) -> None:
        """Take note of the newest policy; see `RecommendationCache.advance`."""
        if token < self._token:
            return
        self._version = version if token > self._token else max(self._version, version)
        self._token = token
        self._resumed_steps.setdefault(token, step)
        for entry_id, entry in list(self._entries.items()):
            if self._is_lost(entry.head):
                self._remove(entry_id, "rejected")
            elif self.is_stale(entry.head.policy_version):
                self._remove(entry_id, "stale")

    def quarantine(self, generator_id: int) -> None:
        """Reject all batches of a generator; see `RecommendationCache.quarantine`."""
        self._quarantined.add(generator_id)
        for entry_id, entry in list(self._entries.items()):
            if entry.head.generator_id == generator_id:
                self._remove(entry_id, "rejected")

    def quarantined(self) -> frozenset[int]:
        """Return the ids of the generators in quarantine."""
        return frozenset(self._quarantined)

    def ledger(self) -> Ledger:
        """Return the ledger."""
        return Ledger(**self._counts)

    def to_files(self) -> dict[str, bytes]:
        """Return batches, draw counts and ledger, for a fleet in one process to go on from."""
        state = {
            "draws": [entry.draws for entry in self._entries.values()],
            "ledger": self._counts,
            "last_sent": self._last_sent,
            "quarantined": sorted(self._quarantined),
            "version": self._version,
        }
        batches = {_batch_file(place): entry.data for place, entry in enumerate(self._entries.values())}
        return {STATE_FILE: json.dumps(state).encode(), **batches}

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on, after the first `advance`, from what `to_files` returned.

        Batches are as many versions behind the newest policy as they were, and of the token that is now at work.
        """
        state = json.loads(files[STATE_FILE])
        ledger = Ledger(**{column: int(n) for column, n in state["ledger"].items()})
        self._counts = Counter(asdict(ledger))
        self._last_sent = {int(generator): int(number) for generator, number in state["last_sent"].items()}
        self._quarantined = set(map(int, state["quarantined"]))
        for place, draws in enumerate(state["draws"]):
            batch = decode(files[_batch_file(place)])
            version = batch.policy_version + self._version - state["version"]
            batch = replace(batch, token=self._token, policy_version=version)
            self._entries[next(self._entry_ids)] = _Entry(Head.of(batch), encode(batch), int(draws))

    def _is_lost(self, head: Head) -> bool:
        return any(head.token < token and head.learner_step > step for token, step in self._resumed_steps.items())

    def _remove(self, entry_id: str, reason: str) -> None:
        if self._entries.pop(entry_id).draws == 0:
            self._counts["waiting"] -= 1
            self._counts[reason] += 1

    def _new_entries(self) -> Iterator[tuple[str, bytes]]:
        for entry_id, entry in list(self._entries.items()):
            if entry_id not in self._read_batches:
                yield entry_id, entry.data

    def _reject(self, entry_id: str) -> None:
        if entry_id in self._entries:  # not yet gone with its generator
            self._remove(entry_id, "rejected")

    def _pick(self, uniform: float, entry_ids: list[str]) -> tuple[str | None, list[str]]:
        alive = [entry_id for entry_id in entry_ids if entry_id in self._entries]
        if not alive:
            return None, []
        picked = alive[int(uniform * len(alive))]
        entry = self._entries[picked]
        if entry.draws == 0:
            self._counts["waiting"] -= 1
            self._counts["drawn"] += 1
        entry.draws += 1
        if self.limits.max_reuse is not None and entry.draws >= self.limits.max_reuse:
            self._remove(picked, "evicted")
            alive.remove(picked)
        return picked, alive


def _batch_file(place: int) -> str:
    return f"cache.{place}.batch"
