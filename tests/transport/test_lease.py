"""The learner's lease, both kinds: one holder at a time, and tokens that only grow."""

from __future__ import annotations

import threading
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


@pytest.mark.parametrize("is_released", [False, True])
def test_an_extension_does_not_bring_a_lease_back(
    lease: LearnerLease, expire: Callable[[], None], is_released: bool
) -> None:
    lease.acquire("a")
    lease.release("a", 1) if is_released else expire()
    lease.extend("a", 1)
    assert lease.acquire("b") == 2


def test_an_extension_leaves_somebody_else_s_lease_alone(lease: LearnerLease, expire: Callable[[], None]) -> None:
    lease.acquire("a")
    expire()
    lease.acquire("b")
    lease.extend("a", 1)
    lease.renew("b", 2)
    with pytest.raises(LeaseHeldError, match="optimiser b"):
        lease.acquire("c")
    with pytest.raises(LeaseLostError):
        lease.renew("a", 1)


def test_a_kept_lease_outlives_a_step_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, extended = [0.0], threading.Event()
    lease = MemoryLease(ttl_s=0.03, clock=lambda: now[0])
    extend = lease.extend

    def extend_and_tell(holder: str, token: int) -> None:
        extend(holder, token)
        extended.set()

    monkeypatch.setattr(lease, "extend", extend_and_tell)
    lease.acquire("a")
    with lease.kept("a", 1):
        for _ in range(3):
            now[0] += 0.02
            for _ in range(2):  # the second one began after the clock went on
                extended.clear()
                assert extended.wait(timeout=300)
        with pytest.raises(LeaseHeldError):
            lease.acquire("b")


def test_a_lease_is_kept_on_after_a_lost_connection_and_no_longer_than_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease, attempts = MemoryLease(ttl_s=0.03), threading.Semaphore(0)

    def lose_connection(holder: str, token: int) -> None:
        attempts.release()
        raise redis.ConnectionError

    monkeypatch.setattr(lease, "extend", lose_connection)
    others = set(threading.enumerate())
    with lease.kept("a", lease.acquire("a")):
        assert all(attempts.acquire(timeout=300) for _ in range(2))
        (keeper,) = set(threading.enumerate()) - others
    keeper.join(timeout=300)
    assert not keeper.is_alive()


@pytest.mark.integration
def test_a_kept_lease_in_redis_gets_its_time_anew(client: redis.Redis) -> None:
    lease = RedisLease(client, "run", ttl_s=0.3)
    lease.acquire("a")
    client.persist("gptrec:{run}:lease")
    with lease.kept("a", 1):
        deadline = time.monotonic() + 300
        while client.pttl("gptrec:{run}:lease") == -1 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert client.pttl("gptrec:{run}:lease") != -1  # the extension gave it an end again


@pytest.mark.integration
def test_renewal_in_redis_puts_the_end_off(client: redis.Redis) -> None:
    lease = RedisLease(client, "run", ttl_s=0.5)
    lease.acquire("a")
    client.pexpire("gptrec:{run}:lease", 5)
    lease.renew("a", 1)
    time.sleep(0.02)
    with pytest.raises(LeaseHeldError):
        lease.acquire("b")
