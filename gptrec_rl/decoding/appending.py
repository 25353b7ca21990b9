"""Next-K for models that score one next item (section 5.2): append the best item to the history and score again."""

from __future__ import annotations

import numpy as np

from gptrec_rl.data import Histories
from gptrec_rl.recommender import HistoriesLike, ScoringRecommender, Slates


class Appending:
    """A scoring recommender that writes its lists item by item, as if the user had taken each.

    The model reads the last n items of history and list; items of the whole history and of the list are masked. At
    K = 1 it is Top-K.
    """

    def __init__(self, model: ScoringRecommender) -> None:
        self._model = model

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Write a list of K items for each history; see `Recommender`."""
        histories = Histories.of(histories)
        items = np.empty((len(histories), k), dtype=np.int64)
        scores = np.empty((len(histories), k), dtype=np.float32)
        for place in range(k):
            left = k - place  # too few candidates for the whole list is an error from the start
            with_list = Histories.of([np.append(h, row[:place]) for h, row in zip(histories, items, strict=True)])
            best = self._model.recommend(with_list, left, allowed)
            items[:, place], scores[:, place] = best.items[:, 0], best.scores[:, 0]
        return Slates(items, scores)
