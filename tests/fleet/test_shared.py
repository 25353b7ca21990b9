"""The hub: both transports carry a batch, a policy, a record, a lease and an id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.fleet.shared import Transport, memory_transport, redis_transport
from gptrec_rl.store.manifest import Origin
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.messages import RolloutBatch


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Transport:
    limits = CacheLimits(max_staleness=1)
    if request.param == "memory":
        return memory_transport("run", limits, "c", "s", str(tmp_path))
    request.getfixturevalue("client")
    return redis_transport(request.getfixturevalue("redis_url"), str(tmp_path), "run", limits, "c", "s")


def test_everything_passes_through(transport: Transport, make_batch: Callable[..., RolloutBatch]) -> None:
    token = transport.lease.acquire("here", above=transport.store.highest_token())
    for version in range(1, 6):
        transport.store.publish_policy(
            {"a": b""}, Origin(token=token, version=version, step=0, catalogue_hash="c", split_hash="s", config={})
        )
    # A staleness of 1 can need the newest two; two more stay for slow readers.
    assert [entry.version for entry in transport.store.policies()] == [3, 4, 5]
    transport.cache.advance(token, 5, 0)
    transport.cache.put(make_batch(policy_version=4))
    assert transport.cache.draw(np.random.default_rng(0)) is not None
    transport.metrics.append(MetricRecord("optimiser", transport.ids.allocate("optimiser").id, token, 0, 1.0, {}))
    assert len(transport.metrics.read()[0]) == 1


def test_memory_transports_of_two_runs_do_not_mix(make_batch: Callable[..., RolloutBatch]) -> None:
    one, other = (memory_transport(run_id, CacheLimits(), "c", "s") for run_id in ("hub-1", "hub-2"))
    one.store.publish_policy({"a": b""}, Origin(1, 1, 0, "c", "s", {}))
    assert other.store.latest_policy() is None
