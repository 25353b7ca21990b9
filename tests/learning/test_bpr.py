"""MF-BPR's training: that it learns who likes what, diverges loudly, and is reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gptrec_rl import recommender
from gptrec_rl.config import BprConfig, FactorsConfig
from gptrec_rl.data import Catalogue, Histories, Interactions, Split, SplitConfig
from gptrec_rl.errors import DivergedError
from gptrec_rl.learning.bpr import BprTraining
from gptrec_rl.models.bpr import MatrixFactorization

SETTINGS = BprConfig(model=FactorsConfig(n_factors=8), learning_rate=0.1, max_steps=30)


@pytest.fixture
def two_tastes() -> Split:
    """80 users, each with 9 of the first 20 items, or of the last 20."""
    rng = np.random.default_rng(0)
    histories = Histories.of([rng.permutation(20)[:9] + 1 + 20 * (user % 2) for user in range(80)])
    ids, users = np.array([str(item) for item in range(40)]), np.array([str(user) for user in range(80)])
    return Split.of(Interactions(Catalogue(ids, ids), users, histories, "two tastes"), SplitConfig(validation_users=20))


def train(split: Split, **settings: object) -> BprTraining:
    config = SETTINGS.model_copy(update=settings)
    torch.manual_seed(config.seed)
    return BprTraining(MatrixFactorization.create(split, 8), split, config)


def test_everybody_is_recommended_what_suits_their_taste(two_tastes: Split) -> None:
    training = train(two_tastes)
    losses: list[float] = []
    training.run(lambda progress: losses.append(progress.loss))
    assert losses[0] == pytest.approx(np.log(2), abs=0.1)  # all scores are about 0 at first
    assert losses[-1] < 0.5 * losses[0]
    known, stranger = two_tastes.test.histories, [[3, 17, 8], [23, 37, 28]]
    assert (training.network.recommend(known, 5).items > 20).mean(axis=1).round().tolist() == [0.0, 1.0] * 40
    assert (training.network.recommend(stranger, 5).items > 20).tolist() == [[False] * 5, [True] * 5]


def test_validation_is_by_the_share_of_unseen_items_that_the_next_one_beats(
    two_tastes: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = train(two_tastes)
    training.run()
    shares = []
    for history, truth in zip(two_tastes.validation.histories, two_tastes.validation.ground_truth, strict=True):
        scores = training.network.score([history])[0]
        unseen = [item for item in range(1, 41) if item != truth and item not in history]
        shares.append(np.mean([scores[item - 1] < scores[truth - 1] for item in unseen]))
    assert training.best_loss == training._validate() == pytest.approx(1 - np.mean(shares))
    monkeypatch.setattr(recommender, "MOST_USERS", 7)  # at once, however many there are
    assert training._validate() == pytest.approx(1 - np.mean(shares))
    assert 0.05 < training.best_loss < 0.4  # beaten: the other taste's 20 and some of its own 11 unseen


def test_held_out_items_are_not_trained_on(two_tastes: Split) -> None:
    training = train(two_tastes)
    assert training.examples_per_step == 80 * 9 - 80 - 20
    interactions = training._interactions.toarray()
    cases = [*zip(two_tastes.test.users, two_tastes.test.ground_truth, strict=True)]
    cases += zip(two_tastes.validation.users, two_tastes.validation.ground_truth, strict=True)
    assert [interactions[user, item - 1] for user, item in cases] == [0.0] * 100


def test_a_learning_rate_that_is_too_large_is_named(two_tastes: Split) -> None:
    with pytest.raises(DivergedError, match="learning_rate below 1e"):
        train(two_tastes, learning_rate=1e30).run()
