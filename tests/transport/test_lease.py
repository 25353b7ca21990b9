"""The learner's lease, both kinds: one holder at a time, and tokens that only grow."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from gptrec_rl.transport.lease import LearnerLease, LeaseHeldError, LeaseLostError, MemoryLease, RedisLease

Setting = tuple[LearnerLease, Callable[[], None]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def lease_and_expiry(request: pytest.FixtureRequest) -> Setting:
    """Return a lease and what lets its time run out."""
    if request.param == "memory":
        now = [0.0]
        lease = MemoryLease(ttl_s=10.0, clock=lambda: now[0])
        return lease, lambda: now.__setitem__(0, now[0] + 10.1)
    client: redis.Redis = request.getfixturevalue("client")
    return RedisLease(client, "run", ttl_s=10.0), lambda: client.pexpire("gptrec:{run}:lease", 0) and None


@pytest.fixture
def lease(lease_and_expiry: Setting) -> LearnerLease:
    return lease_and_expiry[0]


@pytest.fixture
def expire(lease_and_expiry: Setting) -> Callable[[], None]:
    return lease_and_expiry[1]


def test_the_first_token_is_1_and_tokens_grow(lease: LearnerLease) -> None:
    assert lease.acquire("a") == 1
    lease.release("a", 1)
    assert lease.acquire("b") == 2


def test_a_second_optimiser_is_refused_and_told_who_is_at_work(lease: LearnerLease) -> None:
    lease.acquire("host-1:4711")
    with pytest.raises(LeaseHeldError, match="host-1:4711"):
        lease.acquire("host-2:42")
    lease.renew("host-1:4711", 1)


def test_the_holder_itself_may_ask_again(lease: LearnerLease) -> None:
    assert lease.acquire("a") == lease.acquire("a") == 1


def test_a_dead_holder_s_lease_runs_out(lease: LearnerLease, expire: Callable[[], None]) -> None:
    lease.acquire("a")
    expire()
    assert lease.acquire("b") == 2


def test_a_paused_optimiser_that_comes_back_has_lost(lease: LearnerLease, expire: Callable[[], None]) -> None:
    lease.acquire("a")
    expire()
    lease.acquire("b")
    with pytest.raises(LeaseLostError, match="a had token 1 of this run, and the newest is 2"):
        lease.renew("a", 1)
    lease.release("a", 1)
    lease.release("b", 2)
    lease.acquire("c")
    with pytest.raises(LeaseLostError):
        lease.renew("b", 2)


def test_a_late_holder_goes_on_when_nobody_took_over(lease: LearnerLease, expire: Callable[[], None]) -> None:
    lease.acquire("a")
    expire()
    lease.renew("a", 1)
    with pytest.raises(LeaseHeldError):
        lease.acquire("b")


def test_releasing_somebody_else_s_lease_does_nothing(lease: LearnerLease) -> None:
    lease.acquire("a")
    lease.release("b", 1)
    lease.release("a", 7)
    with pytest.raises(LeaseHeldError):
        lease.acquire("b")


def test_tokens_grow_beyond_the_store_s_when_redis_lost_its_data(lease: LearnerLease) -> None:
    assert lease.acquire("a", above=7) == 8
    lease.release("a", 8)
    assert lease.acquire("b", above=3) == 9


@pytest.mark.integration
def test_renewal_in_redis_puts_the_end_off(client: redis.Redis) -> None:
    lease = RedisLease(client, "run", ttl_s=0.5)
    lease.acquire("a")
    client.pexpire("gptrec:{run}:lease", 5)
    lease.renew("a", 1)
    time.sleep(0.02)
    with pytest.raises(LeaseHeldError):
        lease.acquire("b")
