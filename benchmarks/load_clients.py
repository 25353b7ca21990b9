"""The clients of the load test: a Generator and an Optimiser without their models, over a real Redis.

Torch is not imported, so that 64 of them fit on a small machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import numpy as np

from gptrec_rl.fleet.orders import IDLE_S
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.telemetry.stream import RedisMetrics
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.messages import decode
from gptrec_rl.transport.redis_cache import RedisCache

DRAW_PAUSE_S = 0.002
"""Of the optimiser when there is no batch; shorter than the service's, which learns most of its time."""
PUBLISH_EVERY = 20


@dataclass(frozen=True)
class Plan:
    """What all clients know.

    Attributes:
        url: of the Redis.
        run_id: of the run; the batches are of it.
        limits: of the cache.
        messages: encoded batches, which the generators send again and again under numbers of their own.
        seconds: how long to go on.
        pace_s: a generator makes at most a batch in so many seconds; 0: as fast as there is room.
    """

    url: str
    run_id: str
    limits: CacheLimits
    messages: tuple[bytes, ...]
    seconds: float
    pace_s: float

    def cache(self) -> RedisCache:
        """Connect to the cache."""
        return RedisCache(connect(self.url), self.run_id, self.limits, catalogue_hash="", split_hash="")

    def reporter(self, role: str, index: int) -> Reporter:
        """Connect to the metrics stream."""
        return Reporter(RedisMetrics(connect(self.url), self.run_id), role, index)


def generate(plan: Plan, generator_id: int, start: Barrier, answer: Connection) -> None:
    """Put batches into the cache; answer with the seconds that each put took, [N] float64."""
    cache, reporter = plan.cache(), plan.reporter("generator", generator_id)
    batches = [decode(message) for message in plan.messages]
    took: list[float] = []
    start.wait()
    due = time.monotonic() + plan.pace_s * np.random.default_rng(generator_id).random()
    ends_at = time.monotonic() + plan.seconds
    while (now := time.monotonic()) < ends_at:
        if now < due or not cache.room():
            time.sleep(due - now if now < due else IDLE_S)
            continue
        number = len(took) + 1
        batch = replace(batches[number % len(batches)], generator_id=generator_id, sequence_number=number)
        since = time.perf_counter()
        cache.put(batch)
        took.append(time.perf_counter() - since)
        due = max(due + plan.pace_s, now)
        reporter.count(names.SPEED_LISTS_PER_S, batch.slates.shape[0] * batch.slates.shape[1])
        if reporter.is_due:
            reporter.report(token=1, step=number)
    answer.send(np.array(took))


def optimise(plan: Plan, start: Barrier, answer: Connection) -> None:
    """Draw batches as fast as they come, and publish now and then; answer as `generate` does."""
    cache, reporter = plan.cache(), plan.reporter("optimiser", 0)
    rng = np.random.default_rng(0)
    took: list[float] = []
    start.wait()
    ends_at = time.monotonic() + plan.seconds
    while time.monotonic() < ends_at:
        since = time.perf_counter()
        if cache.draw(rng) is None:
            time.sleep(DRAW_PAUSE_S)
            continue
        took.append(time.perf_counter() - since)
        if len(took) % PUBLISH_EVERY == 0:
            cache.advance(token=1, version=0, step=len(took))
        if reporter.is_due:
            reporter.report(token=1, step=len(took))
    answer.send(np.array(took))
