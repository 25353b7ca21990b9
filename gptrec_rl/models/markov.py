"""Models that count: popularity, and the Markov chain of section 4.6, the first teacher."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gptrec_rl.data import Histories, Split
from gptrec_rl.recommender import HistoriesLike, Slates, candidates, require_room, top_k

MAX_DISTANCE = 50
DISCOUNT = 0.6
SMOOTHING = 0.1


class MarkovChain:
    """Counts of which item follows which, one table a distance.

    It scores item i for history h by sum_j DISCOUNT^j log p_j(i | h_(T-j+1)), j = 1..50 (section 4.6).

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
        histories = Histories.of(histories, self.n_items)
        owners, distances, sources = _recent(histories)  # each [N]
        known = self._counts[sources] > 0
        owners, distances, sources = owners[known], distances[known], sources[known]
        weights = (DISCOUNT**distances).astype(np.float32)
        scores = self._weighted_corrections(weights, (distances - 1) * self.n_items + sources, owners, len(histories))
        constants = weights * (np.log(SMOOTHING) - np.log(self._counts[sources])).astype(np.float32)
        scores += np.bincount(owners, constants, minlength=len(histories)).astype(np.float32)[:, None]
        scores[np.bincount(owners, minlength=len(histories)) == 0] = self._popularity
        return scores

    def _weighted_corrections(self, weights: np.ndarray, rows: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
        """Add up weighted rows of the corrections for their owners, [n, I] float32.

        One matrix whose columns are the rows asked for, each moved down to its owner's place in the flat result, times
        the vector of weights: that adds into dense memory, where a product of two sparse matrices would not.
        """
        chosen = self._corrections[rows]
        starts = (owners * self.n_items).astype(sparse.get_index_dtype(maxval=n * self.n_items))
        places = chosen.indices + np.repeat(starts, np.diff(chosen.indptr))
        shape = (n * self.n_items, len(rows))
        moved = sparse.csc_matrix((chosen.data, places, chosen.indptr), shape=shape, copy=False)
        scores: np.ndarray = (moved @ weights).reshape(n, self.n_items)
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K best scored items that are not in the history; see `Recommender`."""
        histories = Histories.of(histories, self.n_items)
        return top_k(self.score(histories), candidates(histories, self.n_items, k, allowed), k)


def _recent(histories: Histories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay out the last 50 items of each history: owner 0..B-1, distance from the end 1..50, item - 1, each [N]."""
    lengths = np.minimum(histories.lengths, MAX_DISTANCE)
    owners = np.repeat(np.arange(len(histories)), lengths)
    distances = np.arange(1, len(owners) + 1) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owners, distances, histories.values[histories.offsets[1:][owners] - distances].astype(np.int64) - 1


def _transitions(training: Histories, distance: int, n_items: int) -> sparse.csr_matrix:
    """Count how often an item stands `distance` places after another in one history, [I, I]."""
    owners = np.repeat(np.arange(len(training)), training.lengths)
    together = owners[distance:] == owners[:-distance]
    sources = training.values[:-distance][together] - 1
    targets = training.values[distance:][together] - 1
    ones = np.ones(len(sources), dtype=np.float32)
    return sparse.coo_matrix((ones, (sources, targets)), shape=(n_items, n_items)).tocsr()


class PopularityRecommender:
    """Ranks items by their share of the training interactions: everybody gets the most frequent ones."""

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
