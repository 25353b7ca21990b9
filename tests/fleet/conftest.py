"""A made-up world of 60 users and 48 items, a small student, and fleets on it whose parts share this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.shared import Transport, memory_transport
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.manifest import Origin
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.lease import MemoryLease
from gptrec_rl.transport.messages import RolloutBatch


@dataclasses.dataclass
class Fleet:
    """What the parts of one fleet share, and makers of them; the lease lasts 10 s by the clock `now`."""

    world: Split
    student: GPTRec
    config: TuneConfig
    transport: Transport
    now: float = 0.0

    def optimiser(self, name: str = "a") -> Optimiser:
        return Optimiser(self.student, self.world, self.config, self.transport, name)

    def start_optimiser(self, name: str = "a") -> Optimiser:
        optimiser = self.optimiser(name)
        optimiser.start()
        return optimiser

    def generator(self, index: int = 0) -> Generator:
        return Generator(self.world, self.config, self.transport, index)

    def validator(self) -> Validator:
        return Validator(self.world, self.config, self.transport)

    def publish(self, policy: GPTRec | None = None, version: int = 0, token: int = 1) -> None:
        """Publish a policy, the student unless another is given, as an optimiser would after 10 steps a version."""
        hashes = {"catalogue_hash": self.world.catalogue.hash, "split_hash": self.world.hash}
        origin = Origin(token=token, version=version, step=10 * version, config={}, **hashes)
        self.transport.store.publish_policy((policy or self.student).to_files(), origin)

    def drawn(self) -> RolloutBatch:
        """Draw a batch; there has to be one."""
        batch = self.transport.cache.draw(np.random.default_rng(0))
        assert batch is not None
        return batch


MakeFleet = Callable[..., Fleet]


@pytest.fixture(scope="session")
def world() -> Split:
    return Split.leave_one_out(synthetic.generate(n_users=60, n_items=48, mean_length=12), 12)


@pytest.fixture(scope="session")
def student(world: Split, make_policy: Callable[..., GPTRec]) -> GPTRec:
    """Return a policy that writes lists of 4 and reads 8 items of the history, fewer than most users have."""
    return make_policy(world.catalogue.n_items, history_length=8, slate_length=4)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TuneConfig]:
    """Return a maker of configurations: 4 histories x 3 lists, a policy published every 2 steps, fp32."""

    def make(fleet: dict[str, Any] | None = None, **changes: Any) -> TuneConfig:
        sizes = {"n_histories": 4, "n_lists": 3, "publish_every": 2, **(fleet or {})}
        return TuneConfig(**{"steps": 4, "precision": "fp32", "fleet": sizes, **changes})

    return make


@pytest.fixture
def make_transport(world: Split, tmp_path: Path) -> Callable[..., Transport]:
    """Return a maker of transports with nothing but the checkpoints on disk, below a folder of the test's."""

    def make(folder: str = "store", **limits: Any) -> Transport:
        root = str(tmp_path / folder)
        return memory_transport(
            "run", CacheLimits(**{"max_reuse": 1, **limits}), world.catalogue.hash, world.hash, root
        )

    return make


@pytest.fixture
def make_fleet(
    world: Split, student: GPTRec, make_config: Callable[..., TuneConfig], make_transport: Callable[..., Transport]
) -> MakeFleet:
    """Return a maker of fleets, configured as by `make_config`; those of one folder share its checkpoints alone."""

    def make(sizes: dict[str, Any] | None = None, folder: str = "store", **changes: Any) -> Fleet:
        config = make_config(sizes, **changes)
        limits = {"max_staleness": config.fleet.max_staleness, "max_reuse": config.fleet.max_reuse}
        transport = make_transport(folder, capacity=config.fleet.cache_batches, **limits)
        fleet = Fleet(world, student, config, transport)
        fleet.transport = dataclasses.replace(transport, lease=MemoryLease(10.0, lambda: fleet.now))
        return fleet

    return make
