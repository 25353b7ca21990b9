"""The metrics of sections 4.3 and 4.4, per user, as pure functions over arrays.

The rewards of stage 2 (`gptrec_rl.rewards`) and the tables (`gptrec_rl.evaluation`) share these definitions. Each takes
the recommended items [B, K] and the cutoff k; a list shorter than k is measured as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metric:
    """What a metric is called in tables and files, and which direction is good."""

    name: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The direction as tables show it."""
        return "↑" if self.higher_is_better else "↓"


HIGHER_IS_BETTER = {"Recall": True, "NDCG": True, "ILD": True, "PCOUNT": False, "nPCOUNT": False}


def metric(name: str) -> Metric:
    """Return the metric of a name such as `NDCG@10`."""
    return Metric(name, HIGHER_IS_BETTER[name.partition("@")[0]])


def metrics_at(k: int) -> tuple[Metric, ...]:
    """Return the metrics of the paper's Table 3 and PCOUNT, in the order of its columns, for lists of k items."""
    names = ("Recall@1", f"Recall@{k}", f"NDCG@{k}", f"ILD@{k}", f"PCOUNT@{k}", f"nPCOUNT@{k}")
    return tuple(metric(name) for name in dict.fromkeys(names))  # for k = 1 the two recalls are one


METRICS = metrics_at(10)


def recall(items: np.ndarray, ground_truth: np.ndarray, k: int) -> np.ndarray:
    """Say whether the held-out item is among the first k.

    Formula: 1 if the ground truth is at a rank <= k, else 0. Range 0 or 1, higher is better. With one relevant item it
    is what other libraries call hit rate; RecTools and RePlay give the same value under either name.

    Args:
        items: recommended items, best first, [B, K] int.
        ground_truth: the held-out item of each user, [B] int.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        >>> recall(np.array([[5, 2, 7], [1, 3, 4]]), np.array([2, 9]), k=2)
        array([1., 0.])
    """
    found: np.ndarray = (items[:, :k] == ground_truth[:, None]).any(axis=1)
    return found.astype(np.float64)


def ndcg(items: np.ndarray, ground_truth: np.ndarray, k: int) -> np.ndarray:
    """Discount the held-out item by its rank.

    Formula: 1 / log2(rank + 1) if the ground truth is at a rank <= k, else 0 (the ideal list, with one relevant item,
    has 1). Range 0..1, higher is better. RecTools divides by the ideal list of k relevant items unless
    `divide_by_achievable=True`; RePlay, RecBole, ranx and trec_eval agree with this one, apart from how trec_eval
    breaks equal scores.

    Args:
        items: recommended items, best first, [B, K] int.
        ground_truth: the held-out item of each user, [B] int.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        Rank 3 gives 1 / log2(4); the second user's item is missed.

        >>> ndcg(np.array([[5, 2, 7], [1, 3, 4]]), np.array([7, 9]), k=3)
        array([0.5, 0. ])
    """
    relevant = items[:, :k] == ground_truth[:, None]  # [B, k]
    gains: np.ndarray = relevant @ discounts(relevant.shape[1])
    return gains


def discounts(k: int) -> np.ndarray:
    """Return 1 / log2(rank + 1) for ranks 1..k, [k] float64."""
    ranks = np.arange(1, k + 1)
    weights: np.ndarray = 1.0 / np.log2(ranks + 1)
    return weights


def ild(items: np.ndarray, genres: np.ndarray, k: int) -> np.ndarray:
    """Measure how far apart the genres of a list's items are: the paper's intra-list distance.

    Formula: sum over pairs j < i of (1 - cosine of the two items' 0/1 genre vectors) / (K (K - 1)). Each pair enters
    once while the divisor counts it twice, so the range is 0..0.5, and the value is HALF the mean pairwise distance
    that RecTools (whose own distance is Hamming), Informfully and Microsoft Recommenders report. Higher is better.
    A list of fewer than 2 items has 0; one that holds an item without genres has NaN.

    Args:
        items: recommended items, [B, K] int in 1..I.
        genres: [I, n_genres] bool, from the catalogue.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        Items 1 and 2 share no genre (distance 1, over 2 * 1); items 1 and 3 are of the same genre.

        >>> ild(np.array([[1, 2], [1, 3]]), np.array([[True, False], [False, True], [True, False]]), k=2)
        array([0.5, 0. ])
    """
    first = items[:, :k]
    n = first.shape[1]
    if n < 2:
        return np.zeros(len(items))
    # For unit vectors v the cosines of all pairs sum to (|sum v|^2 - n) / 2, so the distances to (n^2 - |sum v|^2) / 2.
    total = genre_directions(first, genres).sum(axis=1)  # [B, n_genres]
    distances = np.maximum(n * n - (total**2).sum(axis=1), 0.0) / (2 * n * (n - 1))
    with_genres = np.flatnonzero(genres.any(axis=1)) + 1
    return np.where(np.isin(first, with_genres).all(axis=1), distances, np.nan)


def genre_directions(items: np.ndarray, genres: np.ndarray) -> np.ndarray:
    """Return the genre vectors of items, scaled to length 1 (0 for an item without genres).

    Args:
        items: [...] int in 1..I.
        genres: [I, n_genres] bool.

    Returns:
        [..., n_genres] float64.
    """
    vectors = genres[items - 1].astype(np.float64)
    lengths = np.sqrt(vectors.sum(axis=-1, keepdims=True))  # of a 0/1 vector: the root of its count, so 0 or >= 1
    scaled: np.ndarray = vectors / np.maximum(lengths, 1.0)
    return scaled


def pcount(items: np.ndarray, frequencies: np.ndarray, k: int) -> np.ndarray:
    """Add up how popular a list's items are.

    Formula: sum over the first k items of freq(item) = interactions of the item / all interactions. Range 0..1, lower
    is better. Counts come from the training data of the split; the authors count over the whole data set, test items
    included. RecTools' `AvgRecPopularity(normalize=True)` is the mean over the list, so PCOUNT / K; elliot and RecBole
    average raw counts.

    Args:
        items: recommended items, [B, K] int in 1..I.
        frequencies: [I] float, summing to 1 (`Split.frequencies`).
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        >>> pcount(np.array([[1, 2], [3, 2]]), np.array([0.5, 0.25, 0.25]), k=2)
        array([0.75, 0.5 ])
    """
    sums: np.ndarray = frequencies[items[:, :k] - 1].sum(axis=1)
    return sums


def npcount(pcounts: np.ndarray, popularity_pcounts: np.ndarray) -> np.ndarray:
    """Express PCOUNT in units of the popularity model's.

    Formula: PCOUNT / mean over the same users of the popularity model's PCOUNT. The mean over users is the paper's
    nPCOUNT: 1 for the popularity model, lower is better, never below 0.

    Args:
        pcounts: PCOUNT of each user, [B] float.
        popularity_pcounts: the popularity model's PCOUNT of the same users, [B] float.

    Returns:
        [B] float64.

    Example:
        >>> npcount(np.array([0.1, 0.2]), np.array([0.3, 0.5]))
        array([0.25, 0.5 ])
    """
    relative: np.ndarray = pcounts / popularity_pcounts.mean()
    return relative
