"""A Generator in a process of its own, over memory and with nobody to talk to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil

from benchmarks import work
from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.shared import Transport, memory_transport
from gptrec_rl.models.precision import keep_memory
from gptrec_rl.store.manifest import Origin
from gptrec_rl.transport.cache import CacheLimits

RUN = "benchmark"
MANY_BATCHES = 20
N_POLICIES = 10


def generating(data: Path | None) -> Callable[[], float]:
    """Run a Generator whose batches are drawn at once; the unit is a list."""
    keep_memory()
    split = work.open_data(data)
    transport = _transport(split, f"memory://{RUN}")
    _publish(transport, work.policy(split.catalogue.n_items).to_files(), split, 1)
    generator, rng = Generator(split, TuneConfig(run_id=RUN), transport), np.random.default_rng(0)

    def run() -> float:
        generator.step()
        batch = transport.cache.draw(rng)
        assert batch is not None
        return float(batch.slates.shape[0] * batch.slates.shape[1])

    return run


def starting(data: Path | None, store: str, policy: Mapping[str, bytes]) -> Callable[[], dict[str, float]]:
    """Start a Generator, and say how long its first batch and the next policies took."""
    keep_memory()
    split = work.open_data(data)
    transport = _transport(split, store)
    generator, rng = Generator(split, TuneConfig(run_id=RUN), transport), np.random.default_rng(0)
    _publish(transport, policy, split, 1)
    generator.step()
    first_batch_s = time.time() - psutil.Process().create_time()
    for _ in range(MANY_BATCHES):
        generator.step()
        transport.cache.draw(rng)

    def run() -> dict[str, float]:
        while generator.step():  # until enough batches wait, so that all it can do is to take up a policy
            pass
        seconds = []
        for version in range(2, 2 + N_POLICIES):
            _publish(transport, policy, split, version)
            started = time.perf_counter()
            generator.step()
            seconds.append(time.perf_counter() - started)
        return {"first_batch_s": first_batch_s, "pick_up_ms": 1000 * max(seconds)}

    return run


def _transport(split: Split, store: str) -> Transport:
    return memory_transport(RUN, CacheLimits(max_staleness=None), split.catalogue.hash, split.hash, store)


def _publish(transport: Transport, policy: Mapping[str, bytes], split: Split, version: int) -> None:
    transport.store.publish_policy(
        policy,
        Origin(
            token=1,
            version=version,
            step=version,
            catalogue_hash=split.catalogue.hash,
            split_hash=split.hash,
            config={},
        ),
    )
