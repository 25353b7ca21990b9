"""The readers of a learner state's files: one of them is mutated, the others are as they were written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from gptrec_rl.config import FleetConfig, ModelConfig, TuneConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.data.sources import synthetic
from gptrec_rl.fleet.generator import SAMPLER_FILE
from gptrec_rl.fleet.generator import STATE_FILE as GENERATOR_FILE
from gptrec_rl.fleet.optimiser import COUNTERS_FILE
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.fleet.shared import memory_transport
from gptrec_rl.learning import state
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.memory_cache import STATE_FILE as CACHE_FILE
from gptrec_rl.transport.memory_cache import MemoryCache
from gptrec_rl.transport.messages import decode

Files = Mapping[str, bytes]


def learner_state_readers(root: str) -> list[tuple[str, bytes, Callable[[bytes], None]]]:
    """Return the name of each file, what was written into it, and a reader that resumes and goes on from it.

    Args:
        root: of an empty checkpoint store.
    """
    fleet, files = _fleet_with_state(root)
    batch = decode(files["cache.0.batch"])

    def moments(changed: Files) -> None:
        fleet.optimiser.resume(changed)
        fleet.optimiser.learner.update(batch)

    def cache(changed: Files) -> None:
        resumed = MemoryCache("run", CacheLimits(), batch.catalogue_hash, batch.split_hash)
        resumed.resume(changed)
        resumed.draw(np.random.default_rng(0))
        resumed.ledger()

    def generator(changed: Files) -> None:
        fleet.generator.resume(changed, fleet.optimiser.token)
        fleet.generator.to_files()

    def reader(name: str, resume: Callable[[Files], None]) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            with state.refusals("learner/step_00000001-token_1"):
                resume({**files, name: data})

        return read

    resumes = {
        "learner.json": fleet.optimiser.resume,
        "policy_optimiser.safetensors": moments,
        COUNTERS_FILE: fleet.optimiser.resume,
        CACHE_FILE: cache,
        GENERATOR_FILE: generator,
        SAMPLER_FILE: generator,
    }
    return [(name, files[name], reader(name, resume)) for name, resume in resumes.items()]


def _fleet_with_state(root: str) -> tuple[SerialFleet, Files]:
    """Return a fleet of one step with a batch in its cache, and the files of its learner state."""
    split = Split.of(synthetic.generate(n_users=20, n_items=24, mean_length=6), SplitConfig(validation_users=2))
    with torch.random.fork_rng():
        sizes = ModelConfig(n_layers=1, n_heads=1, width=2, history_length=2, slate_length=2)
        student = GPTRec.create(split.catalogue.n_items, sizes)
    config = TuneConfig(steps=10, precision="fp32", fleet=FleetConfig(n_histories=2, n_lists=2))
    transport = memory_transport("run", CacheLimits(), split.catalogue.hash, split.hash, root)
    fleet = SerialFleet.of(student, split, config, transport)
    fleet.optimiser.start()
    fleet.generator.step()
    fleet.optimiser.step()
    fleet.generator.step()
    fleet.optimiser.save()
    saved = transport.store.read_latest_learner()
    assert saved is not None
    return fleet, saved[1]
