"""The metrics of sections 4.3 and 4.4, and what a catalogue's owner asks beyond them, as pure functions over arrays.

The rewards of stage 2 (`gptrec_rl.rewards`) and the tables (`gptrec_rl.evaluation`) share these definitions. Each takes
the recommended items [B, K] and the cutoff k; a list shorter than k is measured as it is. Most give a value a user;
coverage and Gini describe all lists together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gptrec_rl.data.histories import item_numbers


@dataclass(frozen=True)
class Metric:
    """What a metric is called in tables and files, and which direction is good."""

    name: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The direction as tables show it."""
        return "↑" if self.higher_is_better else "↓"


HEAD_SHARE = 0.8
"""The short head is the most popular items that have this share of the training interactions."""


def metric(name: str) -> Metric:
    """Return the metric of a name such as `NDCG@10`."""
    return Metric(name, DEFINITIONS[name.partition("@")[0]].higher_is_better)


def metrics_at(k: int) -> tuple[Metric, ...]:
    """Return the metrics of the paper's Table 3 and PCOUNT, in the order of its columns, for lists of k items."""
    names = ("Recall@1", f"Recall@{k}", f"NDCG@{k}", f"ILD@{k}", f"PCOUNT@{k}", f"nPCOUNT@{k}")
    return tuple(metric(name) for name in dict.fromkeys(names))  # for k = 1 the two recalls are one


def beyond_at(k: int) -> tuple[Metric, ...]:
    """Return the metrics of `DEFINITIONS` that the paper's Table 3 doesn't have."""
    of_paper = {each.name.partition("@")[0] for each in metrics_at(k)}
    return tuple(metric(f"{name}@{k}") for name in DEFINITIONS if name not in of_paper)


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
    return ndcg_of_ranks(ranks(items, ground_truth), k)


def ranks(items: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Find the held-out item in each list: its rank 1..K, or 0 where it is missing, [B] int64.

    Args:
        items: recommended items, best first, [B, K] int.
        ground_truth: the held-out item of each user, [B] int.

    Example:
        >>> ranks(np.array([[5, 2, 7], [1, 3, 4]]), np.array([7, 9]))
        array([3, 0])
    """
    relevant = items == ground_truth[:, None]  # [B, K]
    return np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1, 0).astype(np.int64)


def ndcg_of_ranks(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return NDCG at any cutoff k up to the length of the lists that the ranks come from.

    Args:
        ranks: rank of each user's held-out item, 0 where it is missing, [B] int.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        >>> ndcg_of_ranks(np.array([1, 3, 0]), k=3), ndcg_of_ranks(np.array([1, 3, 0]), k=2)
        (array([1. , 0.5, 0. ]), array([1., 0., 0.]))
    """
    return np.concatenate([[0.0], discounts(k)])[np.where(ranks <= k, ranks, 0)]


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
    vectors = genres[item_numbers(items, len(genres)) - 1].astype(np.float64)
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
    sums: np.ndarray = frequencies[item_numbers(items[:, :k], len(frequencies)) - 1].sum(axis=1)
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


def miuf(items: np.ndarray, n_users_of_item: np.ndarray, n_users: int, k: int) -> np.ndarray:
    """Measure novelty: how few users know a list's items (mean inverse user frequency).

    Formula: mean over the first k items of -log2(users(item) / n_users), with users(item) counted in the training data
    of the split and an item that no one has counted as if one user had. Range 0..log2(n_users), higher is better. As
    RecTools' `MeanInvUserFreq`; RePlay's Surprisal divides by log2(n_users), Microsoft Recommenders' novelty divides
    counts by interactions, and RePlay's Novelty is another thing (the share of items new to the user).

    Args:
        items: recommended items, [B, K] int in 1..I.
        n_users_of_item: users with the item in training, [I] int.
        n_users: users in training.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        Of four users all have item 1, two have item 2 and none has item 3: novelties 0, 1 and 2.

        >>> miuf(np.array([[1, 2], [2, 3]]), np.array([4, 2, 0]), n_users=4, k=2)
        array([0.5, 1.5])
    """
    novelties = np.log2(n_users) - np.log2(np.maximum(n_users_of_item, 1))  # [I]
    means: np.ndarray = novelties[item_numbers(items[:, :k], len(novelties)) - 1].mean(axis=1)
    return means


def tail(items: np.ndarray, in_head: np.ndarray, k: int) -> np.ndarray:
    """Measure the share of a list that lies outside the short head (average percentage of long-tail items).

    Formula: items of the first k that are not in the short head / k. Range 0..1, higher is better. As elliot's APLT,
    whose head has 80 % of the interactions too (`short_head`). RecBole's TailPercentage is the same if `tail_ratio` is
    the largest number of users that an item outside the head has; its default tail is the least popular tenth of items.

    Args:
        items: recommended items, [B, K] int in 1..I.
        in_head: whether each item is in the short head, [I] bool.
        k: how many of the first items count.

    Returns:
        [B] float64.

    Example:
        >>> tail(np.array([[1, 2], [3, 2]]), np.array([True, False, False]), k=2)
        array([0.5, 1. ])
    """
    shares: np.ndarray = (~in_head[item_numbers(items[:, :k], len(in_head)) - 1]).mean(axis=1)
    return shares


def short_head(n_users_of_item: np.ndarray, share: float = HEAD_SHARE) -> np.ndarray:
    """Find the most popular items that together have a share of the interactions, [I] bool.

    Items enter by popularity, equal ones by the smaller id, until the share is reached; the item that reaches it is in.

    Args:
        n_users_of_item: users with the item in training, [I] int.
        share: of all interactions, 0..1.

    Example:
        Item 2 has 6 of 10 interactions and item 1 brings them to 8.

        >>> short_head(np.array([2, 6, 1, 1]))
        array([ True,  True, False, False])
    """
    order = np.argsort(-n_users_of_item, kind="stable")
    counts = n_users_of_item[order]
    before = np.cumsum(counts) - counts
    in_head = np.zeros(len(order), dtype=bool)
    in_head[order] = before < share * counts.sum()
    return in_head


def coverage(items: np.ndarray, n_items: int, k: int) -> float:
    """Measure how much of the catalogue is in anyone's list.

    Formula: distinct items in the first k places of all lists / I. Range 0..1, higher is better. It grows with the
    number of users, so only values over the same users compare. RecTools' CatalogCoverage gives the count unless
    `normalize=True`, RePlay's Coverage divides by the items seen in training.

    Args:
        items: recommended items of all users, [B, K] int in 1..I.
        n_items: I.
        k: how many of the first items count.

    Example:
        >>> coverage(np.array([[1, 2], [1, 3]]), n_items=4, k=2)
        0.75
    """
    return len(np.unique(item_numbers(items[:, :k], n_items))) / n_items


def gini(items: np.ndarray, n_items: int, k: int) -> float:
    """Measure how unequally the catalogue's items are recommended: the Gini coefficient of their exposure.

    Formula: sum_i (2 i - I - 1) c_i / (I sum_i c_i) with c_1 <= ... <= c_I, how often each item of the catalogue stands
    in the first k places of all lists. Range 0..1 - 1/I, LOWER is better: 0 if all items are recommended equally often,
    1 - 1/I if one item is all that is recommended. As RecBole's GiniIndex; elliot's is turned around and has another
    divisor, 1 - (this one) * I / (I - 1).

    Args:
        items: recommended items of all users, [B, K] int in 1..I.
        n_items: I.
        k: how many of the first items count.

    Example:
        Items are recommended 0, 1, 1 and 2 times: (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 2) / (4 * 4).

        >>> gini(np.array([[1, 2], [1, 3]]), n_items=4, k=2)
        0.375
    """
    counts = np.sort(np.bincount(item_numbers(items[:, :k], n_items).ravel(), minlength=n_items + 1)[1:])  # [I]
    places = np.arange(1, n_items + 1)
    return float((2 * places - n_items - 1) @ counts / (n_items * counts.sum()))


@dataclass(frozen=True)
class Lists:
    """All that a metric may look at.

    Attributes:
        items: recommended items of all users, best first, [B, K] int in 1..I.
        ground_truth: the held-out item of each user, [B] int.
        popular: the popularity model's lists for the same users, [B, K] int.
        genres: [I, n_genres] bool.
        frequencies: each item's share of the training interactions, [I] float.
        n_users_of_item: users with the item in training, [I] int.
        n_users: users in training.
    """

    items: np.ndarray
    ground_truth: np.ndarray
    popular: np.ndarray
    genres: np.ndarray
    frequencies: np.ndarray
    n_users_of_item: np.ndarray
    n_users: int


@dataclass(frozen=True)
class Definition:
    """A metric as tables measure it.

    Attributes:
        measure: function of the lists and k; a value a user [B] float64, or one of all lists together.
        higher_is_better: its direction.
    """

    measure: Callable[[Lists, int], np.ndarray | float]
    higher_is_better: bool


def _npcount(of: Lists, k: int) -> np.ndarray:
    return npcount(pcount(of.items, of.frequencies, k), pcount(of.popular, of.frequencies, k))


DEFINITIONS = {
    "Recall": Definition(lambda of, k: recall(of.items, of.ground_truth, k), True),
    "NDCG": Definition(lambda of, k: ndcg(of.items, of.ground_truth, k), True),
    "ILD": Definition(lambda of, k: ild(of.items, of.genres, k), True),
    "PCOUNT": Definition(lambda of, k: pcount(of.items, of.frequencies, k), False),
    "nPCOUNT": Definition(_npcount, False),
    "MIUF": Definition(lambda of, k: miuf(of.items, of.n_users_of_item, of.n_users, k), True),
    "Tail": Definition(lambda of, k: tail(of.items, short_head(of.n_users_of_item), k), True),
    "Coverage": Definition(lambda of, k: coverage(of.items, len(of.frequencies), k), True),
    "Gini": Definition(lambda of, k: gini(of.items, len(of.frequencies), k), False),
}
"""By their names in tables; a new one is a function and a line here (docs/extending.md)."""

METRICS = metrics_at(10)
BEYOND = beyond_at(10)
