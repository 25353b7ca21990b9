"""The keys of a run in Redis: their names, and how long they stay once it is finished."""

from __future__ import annotations

import redis

KEPT_DAYS = 7
"""How long the keys of a finished run stay, for whoever looks at it or resumes it."""

_CACHE = ("batches", "entries", "ledger", "state", "resumed", "sent", "quarantined")
CACHE = tuple(f"cache:{name}" for name in _CACHE)
"""In the order in which the scripts of the cache take them."""
LASTING = ("control", "token", "ids", "starts", "metrics", *CACHE)
"""All but the lease, which has an expiry of its own."""


def key(run_id: str, name: str) -> str:
    """Return the key of a run; the braces keep all of a run's together."""
    return f"gptrec:{{{run_id}}}:{name}"


# KEYS: all lasting ones. In front stands what can only free memory: after it Redis carries a script out even if it has
# none left.
_EXPIRE = "redis.call('HDEL', KEYS[1], '')\nfor _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end"
_PERSIST = "redis.call('HDEL', KEYS[1], '')\nfor _, key in ipairs(KEYS) do redis.call('PERSIST', key) end"


class RunKeys:
    """All lasting keys of a run: an Optimiser that is done has them expire, and one that starts lets them stay."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._keys = [key(run_id, name) for name in LASTING]
        self._expire, self._persist = map(client.register_script, (_EXPIRE, _PERSIST))

    def expire(self) -> None:
        """Let them go in a week; what is written later goes with them (see `redis_cache`)."""
        self._expire(keys=self._keys, args=[KEPT_DAYS * 24 * 3600 * 1000])

    def persist(self) -> None:
        """Let them stay."""
        self._persist(keys=self._keys)


class MemoryKeys(RunKeys):
    """The same for a fleet in one process, which leaves nothing behind."""

    def __init__(self) -> None:
        pass

    def expire(self) -> None:
        """Do nothing."""

    def persist(self) -> None:
        """Do nothing."""
