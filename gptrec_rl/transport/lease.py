"""The learner's lease: at most one optimiser a run, told apart from its predecessors by a fencing token that grows."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from gptrec_rl.errors import LeaseError, StorageError
from gptrec_rl.transport.keys import key

DEFAULT_TTL_S = 10.0

logger = logging.getLogger(__name__)


class LeaseHeldError(LeaseError):
    """Another optimiser holds the lease; the message names it."""


class LeaseLostError(LeaseError):
    """The lease has gone to another optimiser; whoever gets this must stop and publish nothing."""


class LearnerLease(ABC):
    """Who may train. The optimiser renews it in its loop, within `kept`, as a step may take longer than `ttl_s`.

    Args:
        ttl_s: seconds after the last renewal or extension at which another may take it.
    """

    def __init__(self, ttl_s: float = DEFAULT_TTL_S) -> None:
        self.ttl_s = ttl_s

    @abstractmethod
    def acquire(self, holder: str, above: int = 0) -> int:
        """Take the lease and return its token.

        Args:
            holder: names this very process (host, process id), one text for no two processes.
            above: the highest token known from elsewhere (the checkpoint store); the new one is larger, also when
                Redis has lost its data.

        Raises:
            LeaseHeldError: another holder has it; after its death wait `ttl_s` and try again.
        """

    @abstractmethod
    def renew(self, holder: str, token: int) -> None:
        """Keep the lease for `ttl_s` more; one that ran out while nobody else took it is taken again.

        Raises:
            LeaseLostError: somebody has taken a newer one.
        """

    @abstractmethod
    def extend(self, holder: str, token: int) -> None:
        """Keep a lease that is still held for `ttl_s` more; one that ran out, was given back or taken is left alone."""

    @contextmanager
    def kept(self, holder: str, token: int) -> Iterator[None]:
        """Extend the lease from a thread within the context, so that it runs out only when this process dies.

        It tells nobody that the lease was lost: `renew` does.
        """
        is_over = threading.Event()

        def keep() -> None:
            while not is_over.wait(self.ttl_s / 3):
                try:
                    self.extend(holder, token)
                except (redis.RedisError, StorageError) as error:
                    logger.warning("lease not extended: %s", error)

        threading.Thread(target=keep, name="lease", daemon=True).start()
        try:
            yield
        finally:
            is_over.set()  # An extension under way does no harm: it can't bring back what is released.

    @abstractmethod
    def release(self, holder: str, token: int) -> None:
        """Give the lease back; nothing happens if it is not held with this token."""


@dataclass
class _Held:
    holder: str
    expires_at: float


class MemoryLease(LearnerLease):
    """A lease within one process."""

    def __init__(self, ttl_s: float = DEFAULT_TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(ttl_s)
        self._clock = clock
        self._token = 0
        self._held: _Held | None = None

    def acquire(self, holder: str, above: int = 0) -> int:
        """Take the lease; see `LearnerLease.acquire`."""
        current = self._held
        if current and current.expires_at > self._clock():
            if current.holder != holder:
                raise _held_by(current.holder, self.ttl_s)
        else:
            self._token = max(self._token, above) + 1
        self._held = _Held(holder, self._clock() + self.ttl_s)
        return self._token

    def renew(self, holder: str, token: int) -> None:
        """Keep the lease; see `LearnerLease.renew`."""
        if token != self._token:
            raise _lost(holder, token, self._token)
        self._held = _Held(holder, self._clock() + self.ttl_s)

    def extend(self, holder: str, token: int) -> None:
        """Keep the lease if it is held; see `LearnerLease.extend`."""
        held, now = self._held, self._clock()
        if token == self._token and held and held.holder == holder and held.expires_at > now:
            held.expires_at = now + self.ttl_s

    def release(self, holder: str, token: int) -> None:
        """Give the lease back."""
        if token == self._token and self._held and self._held.holder == holder:
            self._held = None


# KEYS: lease (the holder, expiring), token (the last one given out). DEL comes first: after it Redis carries a script
# out even if its memory is full, and an optimiser without its lease would draw nothing and free none.
_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, holder} end
redis.call('DEL', KEYS[1])
local token = tonumber(redis.call('GET', KEYS[2]) or '0')
if not holder then
  token = math.max(token, tonumber(ARGV[2])) + 1
  redis.call('SET', KEYS[2], token)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return {token, ARGV[1]}
"""

_RENEW = """
local token = tonumber(redis.call('GET', KEYS[2]) or '0')
if token == tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
end
return token
"""

_IS_HELD = "redis.call('GET', KEYS[1]) == ARGV[1] and tonumber(redis.call('GET', KEYS[2])) == tonumber(ARGV[2])"
_EXTEND = f"if {_IS_HELD} then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end"
_RELEASE = f"if {_IS_HELD} then redis.call('DEL', KEYS[1]) end"


class RedisLease(LearnerLease):
    """A lease among all processes that share a Redis."""

    def __init__(self, client: redis.Redis, run_id: str, ttl_s: float = DEFAULT_TTL_S) -> None:
        super().__init__(ttl_s)
        self._keys = [key(run_id, "lease"), key(run_id, "token")]
        scripts = (_ACQUIRE, _RENEW, _EXTEND, _RELEASE)
        self._acquire, self._renew, self._extend, self._release = map(client.register_script, scripts)

    @property
    def _ttl_ms(self) -> int:
        return round(self.ttl_s * 1000)

    def acquire(self, holder: str, above: int = 0) -> int:
        """Take the lease; see `LearnerLease.acquire`."""
        token, current = self._acquire(keys=self._keys, args=[holder, above, self._ttl_ms])
        if token == 0:
            raise _held_by(current.decode(), self.ttl_s)
        return int(token)

    def renew(self, holder: str, token: int) -> None:
        """Keep the lease; see `LearnerLease.renew`."""
        newest = int(self._renew(keys=self._keys, args=[holder, token, self._ttl_ms]))
        if newest != token:
            raise _lost(holder, token, newest)

    def extend(self, holder: str, token: int) -> None:
        """Keep the lease if it is held; see `LearnerLease.extend`."""
        self._extend(keys=self._keys, args=[holder, token, self._ttl_ms])

    def release(self, holder: str, token: int) -> None:
        """Give the lease back."""
        self._release(keys=self._keys, args=[holder, token])


def _held_by(holder: str, ttl_s: float) -> LeaseHeldError:
    return LeaseHeldError(
        f"optimiser {holder} is at work on this run; stop it, or, if it is dead, try again in {ttl_s:.0f} s"
    )


def _lost(holder: str, token: int, newest: int) -> LeaseLostError:
    return LeaseLostError(f"optimiser {holder} had token {token} of this run, and the newest is {newest}; it stops")
