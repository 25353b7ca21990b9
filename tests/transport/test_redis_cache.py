"""What only the cache in Redis has to stand: crashes, strangers, and many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import redis

from gptrec_rl.transport.cache import CacheLimits, Ledger
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.messages import RolloutBatch
from gptrec_rl.transport.redis_cache import RedisCache, ledger_of

pytestmark = pytest.mark.integration

Maker = Callable[..., RolloutBatch]
STREAM = "gptrec:{run}:cache:batches"


def open_cache(client: redis.Redis, **limits: int | None) -> RedisCache:
    return RedisCache(client, "run", CacheLimits(**limits), "c", "s")


def test_a_restarted_optimiser_finds_its_counts(client: redis.Redis, make_batch: Maker) -> None:
    cache = open_cache(client, max_reuse=2)
    for number in range(2):
        cache.put(make_batch(number))
    rng = np.random.default_rng(0)
    for _ in range(3):
        cache.draw(rng)
    restarted = open_cache(client, max_reuse=2)
    assert restarted.ledger() == Ledger(generated=2, drawn=2)
    assert restarted.draw(rng) is not None
    assert restarted.draw(rng) is None


def test_the_stream_holds_no_more_than_m_batches(client: redis.Redis, make_batch: Maker) -> None:
    cache = open_cache(client, capacity=3)
    for number in range(10):
        cache.put(make_batch(number))
    assert client.xlen(STREAM) == 3


def test_entries_written_by_hand_are_rejected_and_counted(client: redis.Redis, make_batch: Maker) -> None:
    cache = open_cache(client, max_reuse=None)
    client.xadd(STREAM, {"batch": b"garbage"})
    client.xadd(STREAM, {"another": b"field"})
    cache.put(make_batch())
    assert cache.draw(np.random.default_rng(0)) is not None
    assert cache.ledger() == Ledger(generated=3, drawn=1, rejected=2)
    assert client.xlen(STREAM) == 1


def test_a_connection_lost_while_rejecting_skips_no_batch(
    client: redis.Redis, make_batch: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(client)
    client.xadd(STREAM, {"batch": b"garbage"})
    cache.put(make_batch())

    def lose_connection(_: str) -> None:
        raise redis.ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_reject", lose_connection)
        with pytest.raises(redis.ConnectionError):
            cache.draw(np.random.default_rng(0))
    assert cache.draw(np.random.default_rng(0)) is not None
    assert cache.ledger() == Ledger(generated=2, drawn=1, rejected=1)


def test_a_batch_that_leaves_before_it_is_rejected_is_counted_once(
    client: redis.Redis, make_batch: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = open_cache(client, capacity=1), open_cache(client, capacity=1)
    writer.put(make_batch(0, run_id="another"))
    reject = reader._reject

    def reject_late(entry_id: str) -> None:
        writer.put(make_batch(1))
        reject(entry_id)

    monkeypatch.setattr(reader, "_reject", reject_late)
    reader.draw(np.random.default_rng(0))
    assert reader.ledger() == Ledger(generated=2, waiting=1, evicted=1)


def test_entries_written_by_hand_are_pushed_out_and_counted(client: redis.Redis, make_batch: Maker) -> None:
    cache = open_cache(client, capacity=1)
    client.xadd(STREAM, {"batch": b"garbage"})
    cache.put(make_batch())
    assert cache.ledger() == Ledger(generated=2, waiting=1, evicted=1)


def test_runs_in_one_redis_do_not_mix(client: redis.Redis, make_batch: Maker) -> None:
    open_cache(client).put(make_batch())
    another = RedisCache(client, "another", CacheLimits(), "c", "s")
    assert another.draw(np.random.default_rng(0)) is None
    assert another.ledger() == Ledger()


def test_a_batch_evicted_between_two_draws_is_not_drawn(client: redis.Redis, make_batch: Maker) -> None:
    reader, writer = open_cache(client, capacity=1, max_reuse=None), open_cache(client, capacity=1, max_reuse=None)
    rng = np.random.default_rng(0)
    for number in range(4):
        writer.put(make_batch(number))
        batch = reader.draw(rng)
        assert batch is not None
        assert batch.sequence_number == number


def test_a_draw_whose_reply_was_lost_gives_the_same_batch_when_it_is_asked_again(
    client: redis.Redis, make_batch: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(client, max_reuse=1)
    for number in range(4):
        cache.put(make_batch(number))
    draw = cache._draw

    def lose_the_first_reply(**arguments: object) -> object:
        draw(**arguments)
        return draw(**arguments)

    monkeypatch.setattr(cache, "_draw", lose_the_first_reply)
    rng = np.random.default_rng(0)
    drawn = [batch.sequence_number if (batch := cache.draw(rng)) else None for _ in range(5)]
    assert set(drawn) == {0, 1, 2, 3, None}
    assert cache.ledger() == Ledger(generated=4, drawn=4)


def test_a_draw_that_failed_is_made_up_for_by_the_next(
    client: redis.Redis, make_batch: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(client, max_reuse=1)
    cache.put(make_batch(0))
    rng = np.random.default_rng(0)
    draw = cache._draw

    def lose_the_reply(**arguments: object) -> object:
        draw(**arguments)
        raise redis.TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_draw", lose_the_reply)
        with pytest.raises(redis.TimeoutError):
            cache.draw(rng)
    assert cache.draw(rng) is not None
    assert cache.draw(rng) is None
    assert cache.ledger() == Ledger(generated=1, drawn=1)


def test_the_ledger_sums_up_with_many_writers_at_once(redis_url: str, client: redis.Redis, make_batch: Maker) -> None:
    def generate(generator_id: int) -> None:
        cache = open_cache(connect(redis_url), capacity=4, max_reuse=4)
        for number in range(30):
            cache.put(make_batch(number, generator_id=generator_id))

    writers = [threading.Thread(target=generate, args=(generator_id,)) for generator_id in range(4)]
    for writer in writers:
        writer.start()
    reader, rng = open_cache(client, capacity=4, max_reuse=4), np.random.default_rng(0)
    n_drawn = 0
    while any(writer.is_alive() for writer in writers):
        n_drawn += reader.draw(rng) is not None
    ledger = reader.ledger()
    assert ledger.generated == 4 * 30 == ledger.waiting + ledger.drawn + ledger.evicted
    assert ledger.drawn <= n_drawn


ENDLESS_DRAWS = """
import sys
import numpy as np
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.redis_cache import RedisCache, ledger_of

cache = RedisCache(connect(sys.argv[1]), "run", CacheLimits(capacity=4, max_reuse=None), "c", "s")
rng = np.random.default_rng(0)
print("ready", flush=True)
while True:
    cache.draw(rng)
"""


def test_the_ledger_sums_up_after_an_optimiser_is_killed(
    redis_url: str, client: redis.Redis, make_batch: Maker
) -> None:
    cache = open_cache(client, capacity=4, max_reuse=None)
    optimiser = subprocess.Popen([sys.executable, "-c", ENDLESS_DRAWS, redis_url], stdout=subprocess.PIPE)
    assert optimiser.stdout is not None
    assert optimiser.stdout.readline() == b"ready\n"
    number = 0
    while cache.ledger().drawn < 20:
        cache.put(make_batch(number))
        number += 1
    os.kill(optimiser.pid, signal.SIGKILL)
    optimiser.communicate()
    ledger = cache.ledger()
    assert ledger.generated == number == ledger.waiting + ledger.drawn + ledger.evicted
    assert open_cache(client, capacity=4, max_reuse=None).draw(np.random.default_rng(0)) is not None


def test_a_redis_that_forgot_the_newest_version_gives_no_outdated_batch(client: redis.Redis, make_batch: Maker) -> None:
    cache = open_cache(client, max_staleness=1)
    cache.advance(token=1, version=3, step=40)
    client.hset("gptrec:{run}:cache:state", "version", 2)  # as after a crash that lost the last second
    cache.put(make_batch(0, policy_version=1))
    cache.put(make_batch(1, policy_version=2))
    drawn = [cache.draw(np.random.default_rng(0)) for _ in range(2)]
    assert [batch and batch.policy_version for batch in drawn] == [2, None]
    assert cache.ledger() == Ledger(generated=2, drawn=1, stale=1)


def test_the_ledger_can_be_read_without_a_cache_and_has_known_columns_only(
    client: redis.Redis, make_batch: Maker
) -> None:
    cache = open_cache(client)
    cache.put(make_batch())
    client.hset("gptrec:{run}:cache:ledger", "another", 3)
    assert ledger_of(client, "run") == cache.ledger() == Ledger(generated=1, waiting=1)
    assert ledger_of(client, "run").balances
    assert not Ledger(generated=2, waiting=1).balances
