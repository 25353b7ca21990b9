"""Connections to Redis: a clear and quick refusal for those who ask, patience without end for the roles of a fleet."""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from gptrec_rl.errors import InputError, StorageError

CONNECT_TIMEOUT_S = 3.0
REPLY_TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 1.0
FOR_EVER = -1

T = TypeVar("T")

logger = logging.getLogger(__name__)


def redact(url: str) -> str:
    """Return the URL with its password, if it has one, replaced by ``***``, even if the URL is malformed."""
    without_account = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url)
    return re.sub(r"(password=)[^&#]*", r"\1***", without_account)


def with_password(url: str, password: str) -> str:
    """Return the URL with a password, which may have any characters, unless it has one already."""
    parts = urlsplit(url)
    if parts.password or "password=" in parts.query:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:{quote(password, safe='')}@{host}").geturl()


def connect(url: str) -> redis.Redis:
    """Connect to Redis and make sure that it answers and can serve a fleet, within seconds.

    The client gives bytes, not text, and raises a `redis.RedisError` as soon as its connection is lost; its next call
    connects again. What waiting can't mend is a `RedisRefusedError`.

    Raises:
        InputError: there is no Redis at this URL, it refuses the password, it can't serve a fleet (see `_examine`), or
            there is no password and it is another machine.
    """
    client = _client(url, _Sorted(NoBackoff(), 0, redact(url)))
    try:
        _examine(client, url)
    except InputError:
        raise
    except RedisError as error:
        raise _refused(url, error) from None
    return client


def connect_patiently(url: str, is_stopped: Callable[[], bool] = lambda: False) -> redis.Redis:
    """Connect to a Redis that may be away, now and at any later time, for as long as it takes.

    Calls wait until it is back, reads its data again, may write (after a failover, with its replicas), or has room to
    write, in memory and on its disk: nothing that depends on it ends when it does. A call whose reply was lost is sent
    again, so it has to be one that may be repeated.

    Args:
        url: where.
        is_stopped: whether this process is to end; a Redis that is away isn't waited for any more.

    Raises:
        StorageError: Redis is away, and this process is to end; later calls as well.
        InputError: what is at this URL is no Redis, refuses the password, can't serve a fleet (see `_examine`), or
            there is no password and it is another machine. Later calls raise it, too (`RedisRefusedError`).
    """
    patience = _Patience(ExponentialBackoff(cap=LONGEST_PAUSE_S, base=0.05), FOR_EVER, redact(url), is_stopped)
    client = _client(url, patience)
    patience.call_with_retry(lambda: _examine(client, url), lambda error: None)
    return client


def _client(url: str, retry: Retry) -> redis.Redis:
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,  # replies have the same form whatever the versions of client and server
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=retry,
            retry_on_error=[BusyLoadingError, ConnectionError, TimeoutError],
        )
    except ValueError:  # its text may hold a part of the password
        raise InputError(f"{redact(url)} is not a Redis URL; write redis://:password@host:6379/0") from None
    settings = client.connection_pool.connection_kwargs
    if "path" not in settings and not settings.get("password") and not _is_loopback(settings.get("host", "localhost")):
        raise InputError(
            f"{redact(url)} is another machine's Redis and has no password: whoever reaches it could change what is "
            "learned; set one in Redis, and give it by --redis-password-file or in GPTREC_REDIS_URL"
        )
    return client


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _examine(client: redis.Redis, url: str) -> None:
    """Refuse a Redis on which the ledger wouldn't hold.

    Raises:
        AwayError: it is a replica; after a failover another one is the primary.
        InputError: it is a node of a Redis Cluster, or it evicts keys that have no expiry.
    """
    place = f"Redis at {redact(url)}"
    try:
        facts: Any = client.info()
    except RedisRefusedError as error:
        if not isinstance(error.__cause__, NoPermissionError) and "unknown command" not in str(error):
            raise
        logger.warning("%s doesn't tell us (INFO) whether it evicts keys, is a replica or in cluster mode", place)
        client.ping()
        return
    if int(facts.get("cluster_enabled", 0)):
        raise InputError(f"{place} is a node of a Redis Cluster, which fleets can't use; give one that is none")
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys") and int(facts.get("maxmemory", 0)):
        raise InputError(
            f"{place} evicts keys when its memory is full (maxmemory-policy {policy}), so batches, ids and the lease "
            "could vanish; set maxmemory-policy to noeviction, or give another Redis"
        )
    if facts.get("role") == "slave":
        raise AwayError(f"{place} is a replica, and can't be written; give the address of its primary")


def _refused(url: str, error: RedisError) -> InputError:
    return InputError(
        f"Redis at {redact(url)} can't be used: {error}; check the address and the password, or leave out "
        "--redis-url for an embedded one"
    )


_PASSING = re.compile(
    # As a code in front, or within a script's error. A full disk is MISCONF, a full memory OOM.
    r"(?:^|[\s-])(?:READONLY|NOREPLICAS|BUSY|LOADING|MASTERDOWN|MISCONF|OOM|TRYAGAIN|CLUSTERDOWN|UNBLOCKED)\s"
    r"|used memory > 'maxmemory'"  # to a script Redis says it in other words, but for these
)
_PASSING_KINDS = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
"""Errors that pass by waiting: after a failover, while replicas are away, a script runs, or there is no room."""
_REFUSALS = (AuthenticationError, NoPermissionError, AskError, ClusterCrossSlotError, InvalidResponse)
"""Errors that need a person, beside those that the next line finds."""
_REFUSAL = re.compile(r"(?:^|[\s-])WRONGTYPE\s|^unknown command|DB index")


class AwayError(ConnectionError):
    """Redis answers, and can't do what it is asked for now; as its connection counts as lost, the next is to another
    server where a failover has put one in its place.
    """


class RedisRefusedError(InputError, RedisError):
    """Redis doesn't let us do what we have to, or isn't what we need; waiting doesn't help."""


class _Sorted(Retry):
    """Retries as `Retry` does; errors are sorted into those that pass by waiting and those that don't.

    Args:
        place: the URL without its password.
    """

    def __init__(self, backoff: Any, retries: int, place: str) -> None:
        super().__init__(backoff, retries)
        self._place = place

    def call_with_retry(self, do: Callable[[], T], *args: Any, **options: Any) -> T:
        """Call, and tell what is wrong by its kind."""
        return super().call_with_retry(lambda: self._sorted(do), *args, **options)

    def _sorted(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except InputError:
            raise
        except _REFUSALS as error:
            raise self._refusal(error) from error
        except ConnectionError as error:
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                raise self._refusal(error) from error
            raise
        except ResponseError as error:
            if isinstance(error, _PASSING_KINDS) or _PASSING.search(str(error)):
                raise AwayError(str(error)) from None
            if _REFUSAL.match(str(error)):
                raise self._refusal(error) from error
            raise

    def _refusal(self, error: RedisError) -> RedisRefusedError:
        return RedisRefusedError(
            f"Redis at {self._place} can't be used: {error}; check the address, the password and the rights of its "
            "user, or leave out --redis-url for an embedded one"
        )


class _Patience(_Sorted):
    """Tries again until it succeeds, but for what waiting can't mend, and who is to stop. Says once why it waits."""

    def __init__(self, backoff: Any, retries: int, place: str, is_stopped: Callable[[], bool]) -> None:
        super().__init__(backoff, retries, place)
        self._is_stopped = is_stopped

    def __deepcopy__(self, memo: Any) -> _Patience:
        """Be the same for every connection of a client, which copies its policy of retrying."""
        return self

    def call_with_retry(self, do: Callable[[], T], *args: Any, **options: Any) -> T:
        """Call until it succeeds."""
        away_since: float | None = None

        def attempt() -> T:
            nonlocal away_since
            try:
                reply = self._sorted(do)
            except (ConnectionError, TimeoutError) as error:
                if self._is_stopped():
                    raise StorageError(f"Redis is away, and this process is to end: {error}") from None
                if away_since is None:
                    away_since = time.monotonic()
                    logger.warning("waiting for Redis: %s", error)
                raise
            if away_since is not None:
                logger.warning("Redis is back after %.1f s", time.monotonic() - away_since)
            return reply

        return super().call_with_retry(attempt, *args, **options)
