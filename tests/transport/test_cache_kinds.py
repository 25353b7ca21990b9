"""The cache in memory and the one in Redis against each other: the same ledger and draws, whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gptrec_rl.transport.cache import CacheLimits, Ledger
from gptrec_rl.transport.memory_cache import MemoryCache
from gptrec_rl.transport.messages import RolloutBatch
from gptrec_rl.transport.redis_cache import RedisCache

Maker = Callable[..., RolloutBatch]


def sums_up(ledger: Ledger) -> bool:
    columns = (ledger.waiting, ledger.drawn, ledger.evicted, ledger.stale, ledger.rejected)
    return ledger.generated == sum(columns) and min(columns) >= 0


class TwoKinds(RuleBasedStateMachine):
    """Whatever happens to both, the Redis kind has the ledger and the draws of the one in memory."""

    def __init__(self, client: redis.Redis, make_batch: Maker) -> None:
        super().__init__()
        client.flushall()
        self.client, self.make_batch = client, make_batch
        self.limits = CacheLimits(capacity=3, max_staleness=1, max_reuse=2)
        self.memory = MemoryCache("run", self.limits, "c", "s")
        self.redis = self.open()
        self.numbers = [0, 0, 0]
        self.token, self.version, self.step = 1, 1, 0

    def open(self) -> RedisCache:
        return RedisCache(self.client, "run", self.limits, "c", "s")

    @rule(
        generator=st.integers(0, 2),
        lag=st.integers(0, 3),
        old=st.booleans(),
        run_id=st.sampled_from(["run"] * 4 + ["x"]),
    )
    def put(self, generator: int, lag: int, old: bool, run_id: str) -> None:
        batch = self.make_batch(
            self.numbers[generator],
            generator_id=generator,
            run_id=run_id,
            policy_version=max(self.version - lag, 0),
            token=self.token - old,
            learner_step=self.step,
        )
        self.numbers[generator] += 1
        assert self.memory.put(batch) is self.redis.put(batch) is True

    @rule(generator=st.integers(0, 2))
    def put_again(self, generator: int) -> None:
        if self.numbers[generator]:
            batch = self.make_batch(self.numbers[generator] - 1, generator_id=generator)
            assert self.memory.put(batch) is self.redis.put(batch) is False

    @rule(seed=st.integers(0, 99))
    def draw(self, seed: int) -> None:
        ours, theirs = (cache.draw(np.random.default_rng(seed)) for cache in (self.memory, self.redis))
        identities = [batch and (batch.generator_id, batch.sequence_number) for batch in (ours, theirs)]
        assert identities[0] == identities[1]

    @rule()
    def quarantine_one(self) -> None:
        for cache in (self.memory, self.redis):
            cache.quarantine(2)

    @rule()
    def publish(self) -> None:
        self.version += 1
        self.step += 20
        for cache in (self.memory, self.redis):
            cache.advance(self.token, self.version, self.step)

    @rule(lost=st.integers(0, 30))
    def resume(self, lost: int) -> None:
        self.token += 1
        self.version += 1
        self.step = max(self.step - lost, 0)
        self.redis = self.open()
        for cache in (self.memory, self.redis):
            cache.advance(self.token, self.version, self.step)

    @invariant()
    def ledgers_agree_and_sum_up(self) -> None:
        assert self.redis.ledger() == self.memory.ledger()
        assert sums_up(self.memory.ledger())
        assert self.redis.room() is self.memory.room()


@pytest.mark.integration
def test_both_kinds_agree_and_every_batch_is_in_one_column(client: redis.Redis, make_batch: Maker) -> None:
    run_state_machine_as_test(
        lambda: TwoKinds(client, make_batch), settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )
