"""A Redis whose memory is full: whoever needs more waits, and what frees some is carried out, or nobody could go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis

from gptrec_rl.data import Histories
from gptrec_rl.telemetry.stream import MetricRecord, RedisMetrics
from gptrec_rl.transport.cache import CacheLimits, Head, Ledger
from gptrec_rl.transport.connection import connect_patiently
from gptrec_rl.transport.control import RedisControl, Wishes
from gptrec_rl.transport.ids import RedisIds
from gptrec_rl.transport.lease import RedisLease
from gptrec_rl.transport.messages import RolloutBatch
from gptrec_rl.transport.redis_cache import RedisCache

pytestmark = pytest.mark.integration

Maker = Callable[..., RolloutBatch]
LARGE = {"histories": Histories.of([[5, 6, 7] * 40_000, [], [9]])}
WAIT_S = 0.5


@pytest.fixture
def fill(client: redis.Redis) -> Iterator[Callable[[], None]]:
    """Return what leaves Redis no memory but that which is freed."""

    def leave_none() -> None:
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)

    yield leave_none
    client.config_set("maxmemory", 0)


def open_cache(client: redis.Redis, **limits: int | None) -> RedisCache:
    return RedisCache(client, "run", CacheLimits(**limits), "c", "s")


def test_a_batch_waits_for_memory_until_a_draw_has_freed_some(
    redis_url: str,
    client: redis.Redis,
    make_batch: Maker,
    fill: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = open_cache(client)
    for number in range(6):
        cache.put(make_batch(number, **LARGE))
    fill()
    patient = open_cache(connect_patiently(redis_url))
    put = threading.Thread(target=patient.put, args=[make_batch(6, **LARGE)], daemon=True)
    put.start()
    put.join(WAIT_S)
    assert put.is_alive()
    assert cache.ledger() == Ledger(generated=6, waiting=6)
    drawn = [cache.draw(np.random.default_rng(0)) for _ in range(4)]
    put.join(300)
    assert not put.is_alive()
    assert None not in drawn
    assert cache.ledger() == Ledger(generated=7, waiting=3, drawn=4)
    assert "waiting for Redis" in caplog.text
    assert "Redis is back" in caplog.text


def test_a_new_policy_frees_the_memory_of_stale_batches(
    client: redis.Redis, make_batch: Maker, fill: Callable[[], None]
) -> None:
    cache = open_cache(client, max_staleness=1)
    for number in range(4):
        cache.put(make_batch(number, **LARGE))
    fill()
    cache.advance(token=1, version=9, step=80)
    assert cache.put(make_batch(4, policy_version=9, **LARGE))
    assert cache.ledger() == Ledger(generated=5, waiting=1, stale=4)


def test_a_batch_that_takes_another_ones_place_needs_no_more_memory(
    client: redis.Redis, make_batch: Maker, fill: Callable[[], None]
) -> None:
    cache = open_cache(client, capacity=2, max_reuse=None)
    for number in range(2):
        cache.put(make_batch(number, **LARGE))
    fill()
    assert cache.put(make_batch(2, **LARGE))
    assert cache.ledger() == Ledger(generated=3, waiting=2, evicted=1)


def test_who_learns_keeps_its_lease_reports_and_refuses_batches_without_memory(
    client: redis.Redis, make_batch: Maker, fill: Callable[[], None]
) -> None:
    cache, lease, metrics = open_cache(client), RedisLease(client, "run"), RedisMetrics(client, "run")
    cache.put(make_batch(0, generator_id=1, **LARGE))
    cache.put_encoded(Head(2, 1, 1, 1, 0), b"garbage")
    fill()
    token = lease.acquire("optimiser")
    lease.renew("optimiser", token)
    record = MetricRecord("optimiser", 0, token, 1, 1.0, {"reward/mean": 0.5})
    metrics.append(record)
    assert [last.step for last in metrics.last(1)] == [record.step]
    assert cache.draw(np.random.default_rng(0)) is not None
    cache.quarantine(3)
    assert cache.quarantined() == {3}
    assert cache.ledger() == Ledger(generated=2, drawn=1, rejected=1)


def test_a_fleet_without_memory_is_paused_scaled_and_stopped(
    client: redis.Redis, make_batch: Maker, fill: Callable[[], None]
) -> None:
    open_cache(client).put(make_batch(0, **LARGE))
    fill()
    control = RedisControl(client, "run")
    control.scale(1)
    control.pause()
    control.stop()
    assert control.wishes() == Wishes(1, True, 1)
    control.start(2)
    assert control.wishes() == Wishes(2, False, 1)


def test_a_process_that_starts_waits_for_memory(redis_url: str, client: redis.Redis) -> None:
    ids = list[int]()

    def start() -> None:
        ids.append(RedisIds(connect_patiently(redis_url), "run").allocate("generator").id)

    starting = threading.Thread(target=start, daemon=True)
    client.config_set("maxmemory", 1)
    try:
        starting.start()
        starting.join(WAIT_S)
        assert ids == []
    finally:
        client.config_set("maxmemory", 0)
    starting.join(300)
    assert ids == [1]
