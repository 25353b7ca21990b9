"""The recommendation cache, the same tests for both kinds."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest

from gptrec_rl.transport.cache import CacheLimits, Head, Ledger, RecommendationCache
from gptrec_rl.transport.memory_cache import MemoryCache
from gptrec_rl.transport.messages import MessageError, RolloutBatch, decode, encode
from gptrec_rl.transport.redis_cache import RedisCache

Maker = Callable[..., RolloutBatch]


class CacheMaker(Protocol):
    def __call__(self, **limits: int | None) -> RecommendationCache: ...


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def make_cache(request: pytest.FixtureRequest) -> CacheMaker:
    def make(**limits: int | None) -> RecommendationCache:
        origin: tuple[Any, ...] = ("run", CacheLimits(**limits), "c", "s")
        if request.param == "memory":
            return MemoryCache(*origin)
        return RedisCache(request.getfixturevalue("client"), *origin)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def sums_up(ledger: Ledger) -> bool:
    columns = (ledger.waiting, ledger.drawn, ledger.evicted, ledger.stale, ledger.rejected)
    return ledger.generated == sum(columns) and min(columns) >= 0


def test_a_new_cache_has_room_and_nothing_to_draw(make_cache: CacheMaker, rng: np.random.Generator) -> None:
    cache = make_cache()
    assert cache.room()
    assert cache.draw(rng) is None
    assert cache.ledger() == Ledger()


def test_what_is_put_is_drawn(make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator) -> None:
    cache = make_cache()
    assert cache.put(make_batch(0))
    assert cache.ledger() == Ledger(generated=1, waiting=1)
    batch = cache.draw(rng)
    assert batch is not None
    np.testing.assert_array_equal(batch.slates, make_batch(0).slates)
    assert cache.ledger() == Ledger(generated=1, drawn=1)


def test_a_repeated_send_is_dropped_and_counted_apart(make_cache: CacheMaker, make_batch: Maker) -> None:
    cache = make_cache()
    assert [cache.put(make_batch(n)) for n in (0, 0, 1, 0)] == [True, False, True, False]
    assert cache.put(make_batch(0, generator_id=2))
    assert cache.ledger() == Ledger(generated=3, waiting=3, repeated=2)


def test_a_batch_is_drawn_at_most_max_reuse_times(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_reuse=3)
    for number in range(2):
        cache.put(make_batch(number))
    drawn = [batch.sequence_number if (batch := cache.draw(rng)) else None for _ in range(8)]
    assert sorted(drawn[:6]) == [0, 0, 0, 1, 1, 1]
    assert drawn[6:] == [None, None]
    assert cache.ledger() == Ledger(generated=2, drawn=2)


def test_a_batch_drawn_more_often_than_a_lowered_bound_is_retired_by_the_next_draw(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_reuse=None)
    cache.put(make_batch())
    for _ in range(3):
        cache.draw(rng)
    cache.limits = CacheLimits(max_reuse=2)
    assert cache.draw(rng) is not None
    assert cache.draw(rng) is None


def test_unbounded_reuse_draws_for_ever(make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator) -> None:
    cache = make_cache(max_reuse=None)
    cache.put(make_batch())
    assert all(cache.draw(rng) is not None for _ in range(50))


def test_draws_are_uniform_over_the_last_m(make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator) -> None:
    cache = make_cache(capacity=4, max_reuse=None)
    for number in range(6):
        cache.put(make_batch(number))
    drawn = [batch.sequence_number for _ in range(800) if (batch := cache.draw(rng))]
    counts = np.bincount(drawn, minlength=6)
    # Batches 0 and 1 were pushed out. 800 draws over 4: mean 200, deviation sqrt(800 * 1/4 * 3/4) = 12.2, five are 61.
    assert list(counts[:2]) == [0, 0]
    assert (abs(counts[2:] - 200) < 61).all()


def test_generators_pause_while_m_batches_wait(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(capacity=2)
    cache.put(make_batch(0))
    assert cache.room()
    cache.put(make_batch(1))
    assert not cache.room()
    cache.draw(rng)
    assert cache.room()


def test_a_full_cache_evicts_the_oldest(make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator) -> None:
    cache = make_cache(capacity=2)
    for number in range(5):
        cache.put(make_batch(number))
    assert cache.ledger() == Ledger(generated=5, waiting=2, evicted=3)
    assert {batch.sequence_number for _ in range(8) if (batch := cache.draw(rng))} == {3, 4}


def test_a_drawn_batch_that_is_pushed_out_stays_in_its_column(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(capacity=1, max_reuse=None)
    cache.put(make_batch(0))
    cache.draw(rng)
    cache.put(make_batch(1))
    assert cache.ledger() == Ledger(generated=2, waiting=1, drawn=1)


def test_a_used_up_batch_takes_no_place(make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator) -> None:
    cache = make_cache(capacity=2, max_reuse=1)
    cache.put(make_batch(0))
    cache.draw(rng)
    cache.put(make_batch(1))
    cache.put(make_batch(2))
    assert cache.ledger() == Ledger(generated=3, waiting=2, drawn=1)


def test_stale_batches_leave_at_once_and_make_room(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(capacity=2, max_staleness=1)
    cache.put(make_batch(0, policy_version=1))
    cache.put(make_batch(1, policy_version=2))
    assert not cache.room()
    cache.advance(token=1, version=2, step=0)
    assert not cache.room()
    cache.advance(token=1, version=3, step=20)
    assert cache.room()
    assert cache.ledger() == Ledger(generated=2, waiting=1, stale=1)
    batch = cache.draw(rng)
    assert batch is not None
    assert batch.policy_version == 2


def test_a_cache_full_of_stale_batches_stalls_nobody(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(capacity=2, max_staleness=0)
    for number in range(2):
        cache.put(make_batch(number))
    cache.advance(token=1, version=2, step=20)
    assert cache.draw(rng) is None
    assert cache.room()
    cache.put(make_batch(2, policy_version=2))
    assert cache.draw(rng) is not None


def test_a_batch_that_arrives_stale_is_counted_and_not_kept(make_cache: CacheMaker, make_batch: Maker) -> None:
    cache = make_cache(max_staleness=4)
    cache.advance(token=1, version=6, step=100)
    assert cache.put(make_batch(0, policy_version=1))
    assert cache.ledger() == Ledger(generated=1, stale=1)


def test_unbounded_staleness_keeps_old_batches(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_staleness=None)
    cache.put(make_batch(0, policy_version=1))
    cache.advance(token=1, version=1000, step=20_000)
    assert cache.draw(rng) is not None


def test_a_resumed_optimiser_rejects_batches_from_lost_steps(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache()
    cache.advance(token=1, version=1, step=0)
    cache.put(make_batch(0, token=1, learner_step=100))
    cache.put(make_batch(1, token=1, learner_step=120))
    cache.advance(token=2, version=2, step=100)
    assert cache.ledger() == Ledger(generated=2, waiting=1, rejected=1)
    cache.put(make_batch(2, token=1, learner_step=120))
    cache.put(make_batch(3, token=2, learner_step=120))
    assert cache.ledger() == Ledger(generated=4, waiting=2, rejected=2)
    assert {batch.sequence_number for _ in range(8) if (batch := cache.draw(rng))} == {0, 3}


def test_steps_lost_once_stay_lost_after_later_resumptions(make_cache: CacheMaker, make_batch: Maker) -> None:
    cache = make_cache()
    cache.advance(token=2, version=2, step=100)
    cache.advance(token=3, version=3, step=200)
    cache.put(make_batch(0, token=1, policy_version=1, learner_step=150))  # beyond token 2's 100, before token 3's 200
    assert cache.ledger() == Ledger(generated=1, rejected=1)


def test_only_the_first_call_with_a_token_says_where_it_resumed(make_cache: CacheMaker, make_batch: Maker) -> None:
    cache = make_cache()
    cache.advance(token=2, version=2, step=100)
    cache.advance(token=2, version=3, step=200)
    cache.put(make_batch(0, token=1, learner_step=150))
    assert cache.ledger() == Ledger(generated=1, rejected=1)


def test_an_optimiser_of_the_past_advances_nothing(make_cache: CacheMaker, make_batch: Maker) -> None:
    cache = make_cache(max_staleness=0)
    cache.advance(token=2, version=2, step=0)
    cache.put(make_batch(0, token=2, policy_version=2))
    cache.advance(token=1, version=9, step=900)
    assert cache.ledger() == Ledger(generated=1, waiting=1)


@pytest.mark.parametrize("field", ["run_id", "catalogue_hash", "split_hash"])
def test_batches_of_another_origin_are_rejected(
    make_cache: CacheMaker,
    make_batch: Maker,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    field: str,
) -> None:
    cache = make_cache(max_reuse=None)
    for number in range(2):
        cache.put(make_batch(number, **{field: "another"}))
    cache.put(make_batch(2))
    with caplog.at_level(logging.WARNING):
        batches = [cache.draw(rng) for _ in range(3)]
    assert all(batch is not None and batch.sequence_number == 2 for batch in batches)
    assert cache.ledger() == Ledger(generated=3, drawn=1, rejected=2)
    assert [field in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"GPRL" + bytes(100)])
def test_garbage_is_rejected_and_counted_and_harms_nobody(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator, garbage: bytes
) -> None:
    cache = make_cache()
    cache.put_encoded(Head(1, 0, 1, 1, 0), garbage)
    cache.put_encoded(Head(1, 1, 1, 1, 0), encode(make_batch(1))[:-1])
    cache.put(make_batch(2))
    batch = cache.draw(rng)
    assert batch is not None
    assert batch.sequence_number == 2
    assert cache.ledger() == Ledger(generated=3, drawn=1, rejected=2)


def test_a_batch_is_read_once(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def decode_and_note(data: bytes) -> RolloutBatch:
        batch = decode(data)
        read.append(batch.sequence_number)
        return batch

    monkeypatch.setattr("gptrec_rl.transport.cache.decode", decode_and_note)
    cache = make_cache(max_reuse=None)
    for number in range(3):
        cache.put(make_batch(number))
        cache.draw(rng)
        cache.draw(rng)
    assert read == [0, 1, 2]


def test_a_reader_keeps_no_batch_that_is_gone(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(capacity=1, max_reuse=None)
    cache.put(make_batch(0))
    first = cache.draw(rng)
    assert first is not None
    reference = weakref.ref(first)
    cache.put(make_batch(1))
    cache.draw(rng)
    del first
    assert reference() is None


def test_a_generator_in_quarantine_is_rejected_with_what_it_has_sent_and_will_send(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_reuse=None)
    for number in range(3):
        for generator in (1, 12):
            cache.put(make_batch(number, generator_id=generator))
    cache.quarantine(1)
    cache.put(make_batch(3, generator_id=1))
    assert cache.quarantined() == {1}
    assert cache.ledger() == Ledger(generated=7, waiting=3, rejected=4)
    assert {batch.generator_id for _ in range(20) if (batch := cache.draw(rng))} == {12}


def test_a_batch_that_was_drawn_before_its_generator_was_caught_counts_as_drawn(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_reuse=None)
    for number in range(2):
        cache.put(make_batch(number))
    assert cache.draw(rng) is not None
    cache.quarantine(1)
    assert cache.draw(rng) is None
    assert cache.ledger() == Ledger(generated=2, drawn=1, rejected=1)


def test_what_the_reader_refuses_is_rejected_and_asked_about_once(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_reuse=None)
    asked = []

    def inspect(batch: RolloutBatch) -> None:
        asked.append(batch.sequence_number)
        if batch.sequence_number == 1:
            raise MessageError("odd")

    for number in range(3):
        cache.put(make_batch(number))
    drawn = {batch.sequence_number for _ in range(20) if (batch := cache.draw(rng, inspect))}
    assert (asked, drawn) == ([0, 1, 2], {0, 2})
    assert cache.ledger() == Ledger(generated=3, drawn=2, rejected=1)


def test_a_reader_may_put_a_generator_in_quarantine_while_it_reads(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache()

    def inspect(batch: RolloutBatch) -> None:
        if batch.generator_id == 1 and batch.sequence_number == 1:
            cache.quarantine(1)
            raise MessageError("odd")

    for number in range(3):
        cache.put(make_batch(number))
    assert cache.draw(rng, inspect) is None
    assert cache.ledger() == Ledger(generated=3, rejected=3)


def test_the_first_policy_of_a_new_optimiser_is_the_newest_whatever_its_number(
    make_cache: CacheMaker, make_batch: Maker, rng: np.random.Generator
) -> None:
    cache = make_cache(max_staleness=1)
    cache.advance(token=1, version=9, step=90)
    cache.advance(token=2, version=3, step=20)  # the store had lost the later ones
    cache.put(make_batch(0, token=2, policy_version=3))
    assert cache.draw(rng) is not None


@pytest.mark.parametrize("limits", [{"capacity": 0}, {"max_staleness": -1}, {"max_reuse": 0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        CacheLimits(**limits)


def test_no_more_reasons_for_rejections_are_told_than_are_remembered(
    make_batch: Maker, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gptrec_rl.transport.cache.MAX_REPORTED", 2)
    cache = MemoryCache("run", CacheLimits(), "c", "s")
    for number in range(4):
        cache.put(make_batch(number, run_id=f"other-{number}"))
    with caplog.at_level(logging.WARNING):
        cache.draw(rng)
    assert len(caplog.records) == 2
    assert cache.ledger().rejected == 4
