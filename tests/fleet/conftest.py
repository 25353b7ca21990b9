"""A made-up world of 60 users and 48 items, a small student, and transports within one process for fleets on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.hub import Transport, memory_transport


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
