"""Lists for everybody as a table, made a part at a time: memory doesn't grow with the users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gptrec_rl.recommender import Slates

if TYPE_CHECKING:
    from gptrec_rl.data import Catalogue, Histories
    from gptrec_rl.recommender import Recommender


class Lists:
    """Makes tables of lists: user, rank, item, title, genres, score.

    Args:
        recommender: makes the lists.
        catalogue: says what the items are.
        k: K; who has fewer items left gets as many as there are.
        allowed: [I] bool; None allows all.

    Attributes:
        n_shorter: users whose list is shorter, so far.
    """

    COLUMNS = ("user", "rank", "item", "title", "genres", "score")

    def __init__(self, recommender: Recommender, catalogue: Catalogue, k: int, allowed: np.ndarray | None) -> None:
        self._recommender = recommender
        self._k = k
        self._allowed = np.ones(catalogue.n_items, dtype=bool) if allowed is None else allowed
        genres = ["|".join(catalogue.genres_of(item)) for item in range(1, catalogue.n_items + 1)]
        self._of_items = pd.DataFrame(
            {
                "item": catalogue.item_ids.astype(object),
                "title": catalogue.titles.astype(object),
                "genres": np.array(genres, dtype=object),
            }
        )
        self.n_shorter = 0

    def of(self, histories: Histories, user_ids: np.ndarray) -> pd.DataFrame:
        """Return the table of some users' lists, in their order."""
        rows, items = np.divmod(histories.pairs(len(self._allowed)), len(self._allowed) + 1)  # each item once
        n_left = self._allowed.sum() - np.bincount(rows[self._allowed[items - 1]], minlength=len(histories))
        lengths = np.minimum(n_left, self._k)
        self.n_shorter += int((lengths < self._k).sum())
        parts = [
            self._table(histories, user_ids, np.flatnonzero(lengths == length), length)
            for length in np.unique(lengths).tolist()
        ]
        return pd.concat(parts).sort_index(kind="stable") if len(parts) > 1 else parts[0]

    def _table(self, histories: Histories, user_ids: np.ndarray, users: np.ndarray, k: int) -> pd.DataFrame:
        """Return the lists of those users who have K items left, by their places."""
        if k:
            slates = self._recommender.recommend(histories.take(users), k, self._allowed)
        else:
            slates = Slates(np.zeros((len(users), 0), dtype=np.int64), np.zeros((len(users), 0), dtype=np.float32))
        table = self._of_items.take(slates.items.ravel() - 1)
        table.index = pd.Index(np.repeat(users, k))
        table.insert(0, "rank", np.tile(np.arange(1, k + 1), len(users)))
        table.insert(0, "user", np.repeat(user_ids[users].astype(object), k))
        table["score"] = slates.scores.ravel().astype(np.float64)
        return table
