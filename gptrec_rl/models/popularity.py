"""The popularity recommender: everybody gets the items most frequent in training (PCOUNT's point of reference)."""

from __future__ import annotations

import numpy as np

from gptrec_rl.data import Histories, Split
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates, top_k


class PopularityRecommender:
    """Ranks items by their share of the training interactions."""

    def __init__(self, split: Split) -> None:
        self._scores = split.frequencies.astype(np.float32)

    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the training frequencies for each history, [B, I] float32, each row summing to 1."""
        return np.tile(self._scores, (len(Histories.of(histories, len(self._scores))), 1))

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K most frequent items that are not in the history; see `Recommender`."""
        histories = Histories.of(histories, len(self._scores))
        return top_k(self.score(histories), candidates(histories, len(self._scores), k, allowed), k)
