"""A small world on disk, and an untrained policy of its catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources.synthetic import generate

if TYPE_CHECKING:
    from gptrec_rl.models.gptrec import GPTRec


@dataclass(frozen=True)
class World:
    """Where data and policy are, and what is in them."""

    data: Path
    policy_folder: Path
    split: Split
    policy: GPTRec

    @property
    def interactions(self) -> Interactions:
        return self.split.interactions


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, make_policy: Callable[..., GPTRec]) -> World:
    """Return 60 users, 60 items, and a policy that writes lists of 10."""
    from gptrec_rl.store.trained_models import save_policy

    folder = tmp_path_factory.mktemp("world")
    interactions = generate(n_users=60, n_items=60, mean_length=12)
    interactions.save(folder / "world.npz")
    split = Split.of(interactions)
    policy = make_policy(n_items=60, history_length=20, slate_length=10)
    save_policy(
        folder / "student",
        policy.to_files(),
        step=0,
        catalogue_hash=interactions.catalogue.hash,
        split_hash=split.hash,
        config={},
    )
    return World(folder / "world.npz", folder / "student", split, policy)


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a runner of commands on the world's data."""
    monkeypatch.setenv("GPTREC_DATA", str(world.data))
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
