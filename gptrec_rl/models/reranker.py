"""A reranked model as a recommender: MMR, greedy ILD or greedy pCount over any scoring model's best (section 4.2).

Like any recommender it can be evaluated, recommend, or teach a student in stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from gptrec_rl import rerank
from gptrec_rl.data import Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.models.recommender import HistoriesLike, ScoringRecommender, Slates, candidates
from gptrec_rl.rerank import Candidates

Method = Literal["mmr", "ild", "pcount"]
Scaling = Literal["raw", "min-max", "softmax"]
"""`raw`: the model's scores and shares of the interactions, as in the paper; `min-max`: both brought to 0..1;
`softmax`: the model's probabilities and shares of the interactions."""
N_CANDIDATES = 1000


class Reranked:
    """Chooses lists among the best unseen items of a scoring model."""

    def __init__(
        self,
        base: ScoringRecommender,
        method: Method,
        weight: float,
        scaling: Scaling,
        split: Split,
        n_candidates: int = N_CANDIDATES,
    ) -> None:
        """Set a reranker up.

        Args:
            base: gives the scores.
            method: `mmr` and `ild` for diverse genres, `pcount` against popular items.
            weight: of the score, 0..1; 1 is the base model's list.
            scaling: of the scores and, for `pcount`, of the popularities.
            split: gives genres and training frequencies.
            n_candidates: how many of the best unseen items a list is chosen from, and min-max scaled over.

        Raises:
            InputError: the weight is outside 0..1, or an item lacks the genres that `mmr` and `ild` compare.
        """
        if not 0.0 <= weight <= 1.0:
            raise InputError(f"a reranker's weight of the score is {weight}; give one between 0 and 1")
        if method != "pcount":
            split.catalogue.require_genres()
        self._base = base
        self._n_candidates = n_candidates
        self._method, self._weight, self._scaling = method, weight, scaling
        self._genres = split.catalogue.genres
        frequencies = split.frequencies
        self._popularity = frequencies / frequencies.max() if scaling == "min-max" else frequencies

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend K items a history, scored by the values that they were chosen by; see `Recommender`.

        Raises:
            InputError: a history leaves fewer than K items, or K is larger than `n_candidates`.
        """
        histories = Histories.of(histories)
        return self.choose(best_candidates(self._base, histories, k, self._n_candidates, allowed), k)

    def choose(self, among: Candidates, k: int) -> Slates:
        """Choose the lists from candidates that are known already, at least K a row."""
        if self._scaling != "raw":
            among = rerank.min_max(among) if self._scaling == "min-max" else rerank.softmax(among)
        if self._method == "pcount":
            items, values = rerank.greedy_pcount(among, self._popularity, self._weight, k)
        else:
            choose = rerank.mmr if self._method == "mmr" else rerank.greedy_ild
            items, values = choose(among, self._genres, self._weight, k)
        return Slates(items, values.astype(np.float32))


def best_candidates(
    base: ScoringRecommender, histories: Histories, k: int, n: int = N_CANDIDATES, allowed: np.ndarray | None = None
) -> Candidates:
    """Take the n best items that each history leaves, fewer where it leaves fewer.

    Raises:
        InputError: a history leaves fewer than K items, or K is larger than n.
    """
    if k > n:
        raise InputError(f"a list of K = {k} items can't be chosen from {n} candidates; ask for more candidates")
    scores = base.score(histories)  # [B, I]
    return Candidates.best(scores, candidates(histories, scores.shape[1], k, allowed), n)


def sweep(
    base: ScoringRecommender,
    method: Method,
    weights: Sequence[float],
    scaling: Scaling,
    split: Split,
    histories: Histories,
    k: int = 10,
    n_candidates: int = N_CANDIDATES,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Make the lists of many weights over one pass of the base model.

    Args:
        base: gives the scores.
        method: as in `Reranked`.
        weights: W weights of the score, each 0..1.
        scaling: as in `Reranked`.
        split: as in `Reranked`.
        histories: B whole histories.
        k: length of the lists.
        n_candidates: as in `Reranked`.
        batch_size: histories scored at once.
        progress: called with the histories done and their total after each batch.

    Returns:
        Items [W, B, K] int64, to be measured by `gptrec_rl.evaluation.measure`.

    Raises:
        InputError: a weight is outside 0..1, or a history leaves fewer than K items.
    """
    rerankers = [Reranked(base, method, weight, scaling, split, n_candidates) for weight in weights]
    items = np.empty((len(weights), len(histories), k), dtype=np.int64)
    for start in range(0, len(histories), batch_size):
        rows = np.arange(start, min(start + batch_size, len(histories)))
        among = best_candidates(base, histories.take(rows), k, n_candidates)
        for place, reranker in enumerate(rerankers):
            items[place, rows] = reranker.choose(among, k).items
        if progress is not None:
            progress(int(rows[-1]) + 1, len(histories))
    return items
