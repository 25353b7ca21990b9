"""The popularity recommender: everybody gets the items most frequent in training (PCOUNT's point of reference)."""

from __future__ import annotations

import numpy as np

from gptrec_rl.data import Histories, Split
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates, require_room, top_k


class PopularityRecommender:
    """Ranks items by their share of the training interactions."""

    def __init__(self, split: Split) -> None:
        self._scores = split.frequencies.astype(np.float32)
        self._ranking = np.argsort(-self._scores, kind="stable")  # item - 1, equal ones by the smaller number

    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the training frequencies for each history, [B, I] float32, each row summing to 1."""
        return np.tile(self._scores, (len(Histories.of(histories, len(self._scores))), 1))

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K most frequent items that are not in the history; see `Recommender`."""
        n_items = len(self._scores)
        histories = Histories.of(histories, n_items)
        if allowed is not None and np.ndim(allowed) == 2:
            return top_k(self.score(histories), candidates(histories, n_items, k, allowed), k)
        ranking = self._ranking
        if allowed is not None:
            candidates(Histories.of([]), n_items, k, allowed)  # whether it is what it should be
            ranking = ranking[allowed[ranking]]
        # The first K + T of the ranking have K that a history of T items doesn't hold.
        ranking = ranking[: k + int(histories.lengths.max(initial=0))]
        places = np.full(n_items, -1)
        places[ranking] = np.arange(len(ranking))
        seen = np.zeros((len(histories), len(ranking) + 1), dtype=bool)  # the last column is all that ranks lower
        seen[np.repeat(np.arange(len(histories)), histories.lengths), places[histories.values - 1]] = True
        seen = seen[:, :-1]
        require_room((~seen).sum(axis=1), n_items, k)
        best = ranking[np.argsort(seen, axis=1, kind="stable")[:, :k]]  # [B, K]
        return Slates(best + 1, self._scores[best])
