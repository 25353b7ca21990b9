"""All that the processes of a fleet share, made for one process or over Redis and a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.telemetry.stream import MemoryMetrics, MetricsStream, RedisMetrics
from gptrec_rl.transport.cache import CacheLimits, RecommendationCache
from gptrec_rl.transport.connection import connect_patiently
from gptrec_rl.transport.control import Control, MemoryControl, RedisControl
from gptrec_rl.transport.ids import IdAllocator, MemoryIds, RedisIds
from gptrec_rl.transport.keys import MemoryKeys, RunKeys
from gptrec_rl.transport.lease import DEFAULT_TTL_S, LearnerLease, MemoryLease, RedisLease
from gptrec_rl.transport.memory_cache import MemoryCache
from gptrec_rl.transport.redis_cache import RedisCache

KEPT_POLICIES_BEYOND_STALENESS = 2
KEPT_POLICIES_UNBOUNDED = 8


@dataclass(frozen=True)
class Transport:
    """What the processes of one run share, and the only things that they share.

    Attributes:
        cache: rollout batches on their way from generators to the optimiser.
        store: policies and learner states.
        metrics: what processes report.
        lease: who may train.
        ids: who a process is.
        control: what the user wants of the run.
        keys: how long all of that stays.
    """

    cache: RecommendationCache
    store: CheckpointStore
    metrics: MetricsStream
    lease: LearnerLease
    ids: IdAllocator
    control: Control
    keys: RunKeys


def memory_transport(
    run_id: str, limits: CacheLimits, catalogue_hash: str, split_hash: str, store_root: str | None = None
) -> Transport:
    """Make the transport of a fleet in one process; its checkpoints are in memory too unless a root is given."""
    return Transport(
        cache=MemoryCache(run_id, limits, catalogue_hash, split_hash),
        store=_store(store_root or f"memory://{run_id}", limits),
        metrics=MemoryMetrics(),
        lease=MemoryLease(),
        ids=MemoryIds(),
        control=MemoryControl(),
        keys=MemoryKeys(),
    )


def redis_transport(
    url: str,
    store_root: str,
    run_id: str,
    limits: CacheLimits,
    catalogue_hash: str,
    split_hash: str,
    lease_s: float = DEFAULT_TTL_S,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Transport:
    """Connect to the transport of a fleet of processes; a Redis that is away is waited for.

    Errors as in `connect_patiently`.
    """
    client = connect_patiently(url, is_stopped)
    return Transport(
        cache=RedisCache(client, run_id, limits, catalogue_hash, split_hash),
        store=_store(store_root, limits),
        metrics=RedisMetrics(client, run_id),
        lease=RedisLease(client, run_id, lease_s),
        ids=RedisIds(client, run_id),
        control=RedisControl(client, run_id),
        keys=RunKeys(client, run_id),
    )


def _store(root: str, limits: CacheLimits) -> CheckpointStore:
    bound = limits.max_staleness
    keep = KEPT_POLICIES_UNBOUNDED if bound is None else bound + KEPT_POLICIES_BEYOND_STALENESS
    return CheckpointStore(root, keep_policies=keep)
