"""The keys of a finished run go by themselves, and those of one that is resumed stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from gptrec_rl.telemetry.stream import MetricRecord, RedisMetrics
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.control import RedisControl
from gptrec_rl.transport.ids import RedisIds
from gptrec_rl.transport.keys import KEPT_DAYS, LASTING, RunKeys, key
from gptrec_rl.transport.lease import RedisLease
from gptrec_rl.transport.messages import RolloutBatch
from gptrec_rl.transport.redis_cache import RedisCache

WEEK_MS = KEPT_DAYS * 24 * 3600 * 1000


def work(client: redis.Redis, batch: RolloutBatch) -> None:
    """Write all kinds of keys but for the quarantine's."""
    cache = RedisCache(client, "run", CacheLimits(), "c", "s")
    cache.advance(1, 0, 0)
    cache.put(batch)
    RedisIds(client, "run").allocate("generator-0")
    RedisMetrics(client, "run").append(MetricRecord("optimiser", 0, 1, 0, 0.0, {}))
    RedisControl(client, "run").scale(2)
    RedisLease(client, "run").acquire("me")


def without_expiry(client: redis.Redis) -> set[str]:
    return {name.decode() for name in client.scan_iter("gptrec:{run}:*") if client.pttl(name) == -1}


@pytest.mark.integration
def test_all_keys_of_a_finished_run_expire_and_a_resumed_one_keeps_them(
    client: redis.Redis, make_batch: Callable[..., RolloutBatch]
) -> None:
    work(client, make_batch(1))
    RedisCache(client, "run", CacheLimits(), "c", "s").quarantine(7)
    lasting = {key("run", name) for name in LASTING}
    assert without_expiry(client) == lasting  # the lease has its own
    RunKeys(client, "run").expire()
    assert without_expiry(client) == set()
    assert all(WEEK_MS - 60_000 < client.pttl(name) <= WEEK_MS for name in lasting)
    RunKeys(client, "run").persist()
    assert without_expiry(client) == lasting


@pytest.mark.integration
def test_what_is_written_after_the_end_goes_as_well(
    client: redis.Redis, make_batch: Callable[..., RolloutBatch]
) -> None:
    work(client, make_batch(1))
    RunKeys(client, "run").expire()
    client.delete(*(key("run", name) for name in ("control", "cache:sent", "cache:entries", "cache:batches")))
    RedisCache(client, "run", CacheLimits(), "c", "s").put(make_batch(2))
    RedisControl(client, "run").stop()
    assert client.exists(key("run", "control"), key("run", "cache:sent"), key("run", "cache:batches")) == 3
    assert without_expiry(client) == set()


@pytest.mark.integration
def test_no_key_is_missing_from_the_list(client: redis.Redis, make_batch: Callable[..., RolloutBatch]) -> None:
    work(client, make_batch(1))
    known = {key("run", name) for name in ("lease", *LASTING)}
    assert {name.decode() for name in client.scan_iter("gptrec:{run}:*")} <= known
