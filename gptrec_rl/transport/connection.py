"""Connections to Redis: a clear and quick refusal at the start, patience with a Redis that restarts during a run."""

from __future__ import annotations

import re

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, RedisError, TimeoutError
from redis.retry import Retry

from gptrec_rl.errors import InputError

CONNECT_TIMEOUT_S = 3.0
REPLY_TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 1.0
N_RETRIES = 60


def redact(url: str) -> str:
    """Return the URL with its password, if it has one, replaced by ``***``, even if the URL is malformed."""
    without_account = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url)
    return re.sub(r"(password=)[^&#]*", r"\1***", without_account)


def connect(url: str) -> redis.Redis:
    """Connect to Redis and make sure that it answers.

    The client that comes back waits and tries again when its connection is lost, for about a minute, so a Redis that
    is restarted in the meantime stops nobody. It gives bytes, not text.

    Raises:
        InputError: there is no Redis at this URL, or it refuses the password; raised within seconds.
    """
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,  # replies have the same form whatever the versions of client and server
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[BusyLoadingError, ConnectionError, TimeoutError],
        )
        client.ping()
    except ValueError:  # its text may hold a part of the password
        raise InputError(f"{redact(url)} is not a Redis URL; write redis://:password@host:6379/0") from None
    except RedisError as error:
        raise InputError(
            f"Redis at {redact(url)} can't be used: {error}; check the address and the password, or leave out "
            "--redis-url for an embedded one"
        ) from None
    client.set_retry(Retry(ExponentialBackoff(cap=LONGEST_PAUSE_S, base=0.05), N_RETRIES))
    return client
