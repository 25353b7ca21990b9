"""A reranked model as a recommender: MMR, greedy ILD or greedy pCount over any scoring model's best (section 4.2).

Like any recommender it can be evaluated, recommend, or teach a student in stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gptrec_rl import rerank
from gptrec_rl.config import RerankConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.data.histories import locked
from gptrec_rl.errors import InputError
from gptrec_rl.recommender import HistoriesLike, ScoringRecommender, Slates, candidates
from gptrec_rl.rerank import Candidates


class Reranked:
    """Chooses lists among the best unseen items of a scoring model."""

    def __init__(self, base: ScoringRecommender, config: RerankConfig, split: Split) -> None:
        """Set a reranker up.

        Args:
            base: gives the scores.
            config: which one, and how it weighs.
            split: gives genres and training frequencies.

        Raises:
            InputError: an item lacks the genres that the method weighs scores against.
        """
        reranker, frequencies = rerank.RERANKERS[config.method], split.frequencies
        if reranker.against == "genres":
            split.catalogue.require_genres()
        self._base = base
        self._config = config
        self._choose = reranker.choose
        popularity = frequencies / frequencies.max() if config.scaling == "min-max" else frequencies
        self._against = split.catalogue.genres if reranker.against == "genres" else locked(popularity)

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend K items a history, scored by the values that they were chosen by; see `Recommender`.

        Raises:
            InputError: a history leaves fewer than K items, or K is larger than `n_candidates`.
        """
        histories = Histories.of(histories)
        return self.choose(best_candidates(self._base, histories, k, self._config.n_candidates, allowed), k)

    def choose(self, among: Candidates, k: int) -> Slates:
        """Choose the lists from candidates that are known already, at least K a row."""
        scaling = self._config.scaling
        if scaling != "raw":
            among = rerank.min_max(among) if scaling == "min-max" else rerank.softmax(among)
        items, values = self._choose(among, self._against, self._config.weight, k)
        return Slates(items, values.astype(np.float32))


def best_candidates(
    base: ScoringRecommender, histories: Histories, k: int, n: int, allowed: np.ndarray | None = None
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
    configs: Sequence[RerankConfig],
    split: Split,
    histories: Histories,
    k: int = 10,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Make the lists of many rerankers over one pass of the base model.

    Args:
        base: gives the scores.
        configs: W rerankers, over as many candidates each.
        split: as in `Reranked`.
        histories: B whole histories.
        k: length of the lists.
        batch_size: histories scored at once.
        progress: called with the histories done and their total after each batch.

    Returns:
        Items [W, B, K] int64, to be measured by `gptrec_rl.evaluation.measure`.

    Raises:
        InputError: a history leaves fewer than K items.
    """
    rerankers = [Reranked(base, config, split) for config in configs]
    (n_candidates,) = {config.n_candidates for config in configs}
    items = np.empty((len(configs), len(histories), k), dtype=np.int64)
    for start in range(0, len(histories), batch_size):
        rows = np.arange(start, min(start + batch_size, len(histories)))
        among = best_candidates(base, histories.take(rows), k, n_candidates)
        for place, reranker in enumerate(rerankers):
            items[place, rows] = reranker.choose(among, k).items
        if progress is not None:
            progress(int(rows[-1]) + 1, len(histories))
    return items
