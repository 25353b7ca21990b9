"""A world of 12 items on a ring, each history a run along it, and lists sampled in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptrec_rl.data import Catalogue, Histories, Interactions, Split, SplitConfig
from gptrec_rl.decoding.next_k import generate
from gptrec_rl.goals import build_rewards, compute_rewards
from gptrec_rl.learning.examples import draw_cuts
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.rewards import Reward

N_ITEMS = 12


@pytest.fixture(scope="session")
def ring() -> Split:
    """60 users, 10 of them for validation; after item i comes item i % 12 + 1; item i has genre i % 3."""
    return ring_of(N_ITEMS)


@pytest.fixture(scope="session")
def wide_ring() -> Split:
    """Return a ring of 24 items, of which every history leaves 10 to recommend."""
    return ring_of(24)


def ring_of(n_items: int) -> Split:
    rng = np.random.default_rng(0)
    ids = np.array([f"item {item}" for item in range(1, n_items + 1)])
    genres = np.arange(1, n_items + 1)[:, None] % 3 == np.arange(3)
    starts, lengths = rng.integers(0, n_items, 60), rng.integers(8, 11, 60)
    histories = [(start + np.arange(length)) % n_items + 1 for start, length in zip(starts, lengths, strict=True)]
    users = np.array([f"user {user}" for user in range(60)])
    catalogue = Catalogue(ids, ids, ("a", "b", "c"), genres)
    return Split.of(Interactions(catalogue, users, Histories.of(histories), "ring"), SplitConfig(validation_users=10))


@pytest.fixture(scope="session")
def roll_out(ring: Split) -> Callable[..., Rollout]:
    """Return a maker of rollouts on the ring (16 histories x 4 lists of 3), seeded."""

    def make(
        policy: GPTRec, rewards: dict[str, Reward] | str, seed: int = 0, n_lists: int = 4, temperature: float = 1.0
    ) -> Rollout:
        cases = draw_cuts(ring, 16, np.random.default_rng(seed))
        sampler = torch.Generator().manual_seed(seed)
        written = generate(policy, cases.histories, 3, n_lists, temperature, sampler)
        slates = written.items.numpy().astype(np.int32)
        functions = build_rewards([rewards], ring) if isinstance(rewards, str) else rewards
        return Rollout(
            temperature=temperature,
            histories=cases.histories,
            ground_truth=cases.ground_truth,
            slates=slates,
            log_probs=written.log_probs.numpy(),
            rewards=compute_rewards(functions, slates, cases.ground_truth, cases.histories, ring.catalogue),
        )

    return make
