from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from gptrec_rl.transport.control import MAX_GENERATORS, Control, MemoryControl, RedisControl, Wishes

KEY = "gptrec:{run}:control"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def open_control(request: pytest.FixtureRequest) -> Callable[[], Control]:
    """Return what opens the same wishes as another process would."""
    if request.param == "redis":
        client = request.getfixturevalue("client")
        return lambda: RedisControl(client, "run")
    control = MemoryControl()
    return lambda: control


def test_nothing_is_wished_at_first(open_control: Callable[[], Control]) -> None:
    assert open_control().wishes() == Wishes(n_generators=None, is_paused=False, n_stops=0)


def test_each_wish_is_seen_by_others_and_leaves_the_rest_alone(open_control: Callable[[], Control]) -> None:
    open_control().scale(3)
    open_control().pause()
    open_control().stop()
    assert open_control().wishes() == Wishes(3, True, 1)
    open_control().resume()
    open_control().stop()
    assert open_control().wishes() == Wishes(3, False, 2)


def test_a_run_that_starts_forgets_scale_and_pause_and_not_how_often_it_was_stopped(
    open_control: Callable[[], Control],
) -> None:
    control = open_control()
    control.scale(7)
    control.pause()
    control.stop()
    control.start(2)
    assert control.wishes() == Wishes(2, False, 1)


@pytest.mark.integration
def test_runs_that_share_a_redis_have_their_own_wishes(client: redis.Redis) -> None:
    RedisControl(client, "other").pause()
    assert not RedisControl(client, "run").wishes().is_paused


@pytest.mark.integration
@pytest.mark.parametrize("text", ["", "-1", "0", "many", "1e3", str(MAX_GENERATORS + 1), "9" * 5000, "\u0663", b"\xff"])
def test_what_is_no_sensible_number_is_not_wished(client: redis.Redis, text: str | bytes) -> None:
    client.hset(KEY, mapping={"generators": text, "paused": text, "\u00e9": "1"})
    assert RedisControl(client, "run").wishes() == Wishes()
