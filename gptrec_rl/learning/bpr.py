"""MF-BPR's training by the library `implicit`: of two items, the one that the user has is to score higher."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gptrec_rl.config import BprConfig
from gptrec_rl.data import Cases, Split
from gptrec_rl.learning.training import Training
from gptrec_rl.models.bpr import MatrixFactorization
from gptrec_rl.recommender import batches, candidates

PAIRS_OF_LOSS = 10_000


class BprTraining(Training[MatrixFactorization]):
    """Training of MF-BPR; a step is an epoch: as many interactions as there are, drawn with replacement.

    It is validated by what it maximises, the share of unseen items that a user's next one beats. So few validation
    users have theirs among the first ten that NDCG@10 would stop the training by chance.

    Args:
        network: untrained, on the processor, trained in place.
        split: the data.
        config: budgets and settings.
    """

    validates = "1 - AUC"

    def __init__(self, network: MatrixFactorization, split: Split, config: BprConfig) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        super().__init__(network, split, config)
        training = split.training
        self._split = split
        self._users = np.repeat(np.arange(len(training)), training.lengths)
        self._items = training.values - 1
        self.examples_per_step = len(self._items)
        ones = np.ones(len(self._items), dtype=np.float32)
        self._interactions = sparse.csr_matrix(
            (ones, (self._users, self._items)), shape=(len(training), network.n_items)
        )
        self._bpr = BayesianPersonalizedRanking(
            factors=config.model.n_factors,
            learning_rate=config.learning_rate,
            regularization=config.regularisation,
            iterations=1,
            num_threads=1,
        )
        self._bpr.user_factors = network.user_factors.numpy()  # the same memory, which the library writes to
        self._bpr.item_factors = network.item_factors.numpy()

    def _validation_loss(self) -> float:
        cases, n_items = self._split.validation, self.network.n_items
        return 1.0 - float(
            np.concatenate([self._beaten(cases.take(rows)) for rows in batches(len(cases.users), n_items)]).mean()
        )

    def _beaten(self, cases: Cases) -> np.ndarray:
        """Return the share of unseen items that score below the held-out one, [B], 0..1."""
        scores = self.network.score(cases.histories)  # [B, I]
        others = candidates(cases.histories, self.network.n_items, 1, None)
        rows = np.arange(len(scores))
        others[rows, cases.ground_truth - 1] = False
        beaten = others & (scores < scores[rows, cases.ground_truth - 1][:, None])
        shares: np.ndarray = beaten.sum(axis=1) / np.maximum(1, others.sum(axis=1))
        return shares

    def _update(self, rng: np.random.Generator) -> float:
        from implicit.recommender_base import ModelFitError

        self._bpr.random_state = int(rng.integers(2**31))
        try:
            self._bpr.fit(self._interactions, show_progress=False)
        except ModelFitError as error:
            raise self._diverged(str(error)) from None
        return self._loss(rng)

    def _loss(self, rng: np.random.Generator) -> float:
        """Return -log sigma(s+ - s-), the mean over pairs of a user's item and one drawn by popularity."""
        places = rng.integers(len(self._items), size=PAIRS_OF_LOSS)
        negatives = self._items[rng.integers(len(self._items), size=PAIRS_OF_LOSS)]
        differences = self._bpr.item_factors[self._items[places]] - self._bpr.item_factors[negatives]
        margins = (self._bpr.user_factors[self._users[places]] * differences).sum(axis=1)
        return float(np.logaddexp(0, -margins).mean())
