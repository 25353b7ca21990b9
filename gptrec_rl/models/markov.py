"""The Markov chain of section 4.6: counts of which item follows which, one table per distance; the first teacher."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gptrec_rl.data import Histories, Split
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates, top_k

MAX_DISTANCE = 50
DISCOUNT = 0.6
SMOOTHING = 0.1


class MarkovChain:
    """Scores item i for history h by sum_j DISCOUNT^j log p_j(i | h_(T-j+1)), j = 1..50 (section 4.6).

    p_j(i | s) = (count of i at distance j after s + 0.1) / count(s). The counts are sparse, so what is stored is the
    correction log(count + 0.1) - log 0.1 where the count isn't 0. An item never seen in training contributes nothing;
    a history without a known item is ranked by popularity.
    """

    def __init__(self, split: Split) -> None:
        self.n_items = split.catalogue.n_items
        training = split.training
        self._counts = np.bincount(training.values, minlength=self.n_items + 1)[1:]
        self._popularity = np.log(self._counts + SMOOTHING).astype(np.float32)
        self._corrections = sparse.vstack(
            [_transitions(training, distance, self.n_items) for distance in range(1, MAX_DISTANCE + 1)], format="csr"
        )  # [50 I, I]: row (distance - 1) I + source - 1
        self._corrections.data = np.log1p(self._corrections.data / SMOOTHING).astype(np.float32)

    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the discounted sum of log-probabilities, [B, I] float32."""
        histories = Histories.of(histories)
        recent = [history[::-1][:MAX_DISTANCE].astype(np.int64) - 1 for history in histories]
        known = [self._counts[sources] > 0 for sources in recent]
        rows = np.repeat(np.arange(len(recent)), [int(which.sum()) for which in known])
        sources = np.concatenate([s[which] for s, which in zip(recent, known, strict=True)] or [np.zeros(0, np.int64)])
        distances = np.concatenate([np.flatnonzero(which) for which in known] or [np.zeros(0, np.int64)])
        weights = (DISCOUNT ** (distances + 1)).astype(np.float32)
        query = sparse.csr_matrix(
            (weights, (rows, distances * self.n_items + sources)), shape=(len(recent), self._corrections.shape[0])
        )
        scores: np.ndarray = (query @ self._corrections).toarray()
        constants = weights * (np.log(SMOOTHING) - np.log(self._counts[sources])).astype(np.float32)
        scores += np.bincount(rows, constants, minlength=len(recent)).astype(np.float32)[:, None]
        scores[[not which.any() for which in known]] = self._popularity
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K best scored items that are not in the history; see `Recommender`."""
        histories = Histories.of(histories)
        return top_k(self.score(histories), candidates(histories, self.n_items, k, allowed), k)


def _transitions(training: Histories, distance: int, n_items: int) -> sparse.csr_matrix:
    """Count how often an item stands `distance` places after another in one history, [I, I]."""
    owners = np.repeat(np.arange(len(training)), training.lengths)
    together = owners[distance:] == owners[:-distance]
    sources = training.values[:-distance][together] - 1
    targets = training.values[distance:][together] - 1
    ones = np.ones(len(sources), dtype=np.float32)
    return sparse.coo_matrix((ones, (sources, targets)), shape=(n_items, n_items)).tocsr()
