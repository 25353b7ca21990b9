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
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from gptrec_rl.errors import InputError

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
    """Connect to Redis and make sure that it answers, within seconds.

    The client gives bytes, not text, and raises a `redis.RedisError` as soon as its connection is lost; its next call
    connects again.

    Raises:
        InputError: there is no Redis at this URL, it refuses the password, or there is none and it is another machine.
    """
    client = _client(url)
    try:
        client.ping()
    except RedisError as error:
        raise _refused(url, error) from None
    return client


def connect_patiently(url: str) -> redis.Redis:
    """Connect to a Redis that may be away, now and at any later time, for as long as it takes.

    Calls wait until it is back, reads its data again, or has room to write, in memory and on its disk: nothing that
    depends on it ends when it does. A call whose reply was lost is sent again, so it has to be one that may be
    repeated.

    Raises:
        InputError: what is at this URL is no Redis, refuses the password, or there is none and it is another machine.
    """
    client = _client(url)
    client.set_retry(_Patience(ExponentialBackoff(cap=LONGEST_PAUSE_S, base=0.05), FOR_EVER))
    try:
        client.ping()
    except RedisError as error:
        raise _refused(url, error) from None
    return client


def _client(url: str) -> redis.Redis:
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,  # replies have the same form whatever the versions of client and server
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
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


def _refused(url: str, error: RedisError) -> InputError:
    return InputError(
        f"Redis at {redact(url)} can't be used: {error}; check the address and the password, or leave out "
        "--redis-url for an embedded one"
    )


_NO_ROOM = (
    "MISCONF",  # its append-only file can't be written: a full disk
    "used memory > 'maxmemory'",  # to a script it says so in other words, but for these
)


class _AwayError(ConnectionError):
    """Redis answers, and can't do what it is asked for now."""


class _RefusedError(RedisError):
    """Redis doesn't know us; waiting doesn't help."""


class _Patience(Retry):
    """Tries again as `Retry` does, but for a refused password; also while Redis can't write. Says once why it waits."""

    def call_with_retry(self, do: Callable[[], T], *args: Any, **options: Any) -> T:
        """Call until it succeeds."""
        away_since: float | None = None

        def attempt() -> T:
            nonlocal away_since
            try:
                reply = _in_words(do)
            except (ConnectionError, TimeoutError) as error:
                if away_since is None:
                    away_since = time.monotonic()
                    logger.warning("waiting for Redis: %s", error)
                raise
            if away_since is not None:
                logger.warning("Redis is back after %.1f s", time.monotonic() - away_since)
            return reply

        return super().call_with_retry(attempt, *args, **options)


def _in_words(do: Callable[[], T]) -> T:
    """Call; sort errors into those that pass by waiting and those that don't."""
    try:
        return do()
    except AuthenticationError as error:
        raise _RefusedError(str(error)) from None
    except ConnectionError as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            raise _RefusedError(str(error)) from None
        raise
    except ResponseError as error:
        if any(reason in str(error) for reason in _NO_ROOM):
            raise _AwayError(str(error)) from None
        raise
