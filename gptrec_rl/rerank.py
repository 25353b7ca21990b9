"""Rerankers as pure functions over arrays: MMR and greedy ILD for diversity, greedy pCount against popularity (4.2).

All weigh a candidate's score against something in 0..1: its likeness to the items already chosen, its distance from
them, or how popular it is. The paper takes scores as they come; scores brought to 0..1 (`min_max`), or turned into
probabilities (`softmax`), give the weights the same meaning for any model, and the rerankers a fair chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from gptrec_rl.data.histories import locked
from gptrec_rl.metrics import discounts, genre_directions


@dataclass(frozen=True)
class Candidates:
    """The items that B lists may be chosen from, best first.

    Attributes:
        items: item numbers 1..I, [B, C] int64; where a history leaves fewer than C, 0 behind them.
        scores: the base model's, larger is better, never increasing along a row, [B, C] float; of no meaning at 0.
    """

    items: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        for name in ("items", "scores"):  # several rerankers choose from the same ones
            object.__setattr__(self, name, locked(getattr(self, name)))

    @classmethod
    def best(cls, scores: np.ndarray, may: np.ndarray, n: int) -> Candidates:
        """Take the best n items of each row, equal scores by the smaller id.

        Args:
            scores: finite, [B, I] float.
            may: whether an item is a candidate, [B, I] bool.
            n: how many to take; C is n, or I where that is less.
        """
        costs = np.where(may, -scores, np.inf)
        n = min(n, costs.shape[1])
        limits = np.partition(costs, n - 1, axis=1)[:, n - 1]  # [B]
        order = np.empty((len(costs), n), dtype=np.int64)  # [B, C]
        for row, (cost, limit) in enumerate(zip(costs, limits, strict=True)):
            places = np.flatnonzero(cost <= limit)  # n and all that tie with the n-th, by id
            order[row] = places[np.argsort(cost[places], kind="stable")[:n]]
        is_real = np.take_along_axis(may, order, axis=1)
        return cls(np.where(is_real, order + 1, 0), np.take_along_axis(scores, order, axis=1))

    @property
    def is_real(self) -> np.ndarray:
        """Return where there is an item, [B, C] bool."""
        return self.items > 0


def min_max(candidates: Candidates) -> Candidates:
    """Scale each row's scores to 0 (its last candidate) .. 1 (its first); where all are equal, to 0.

    Returns:
        The same items with float64 scores.
    """
    scores = candidates.scores.astype(np.float64)
    lowest = np.where(candidates.is_real, scores, np.inf).min(axis=1, keepdims=True)  # [B, 1]
    spread = scores[:, :1] - lowest
    return Candidates(candidates.items, (scores - lowest) / np.where(spread > 0, spread, 1.0))


def softmax(candidates: Candidates) -> Candidates:
    """Turn each row's scores into probabilities; they have to be logits, as those of models trained by cross-entropy.

    Returns:
        The same items with float64 scores that sum to 1 over a row.
    """
    logits = np.where(candidates.is_real, candidates.scores.astype(np.float64), -np.inf)
    return Candidates(candidates.items, special.softmax(logits, axis=1))


def mmr(candidates: Candidates, genres: np.ndarray, weight: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose lists by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    The first item is the best scored; then, one at a time, the arg max of weight * score - (1 - weight) * (largest
    cosine similarity of genres to an item chosen before), equal values by the better score. Weight 1 gives the base
    model's list, weight 0 looks at genres alone.

    Args:
        candidates: at least k in each row.
        genres: [I, n_genres] bool, from the catalogue; an item without genres is like no other.
        weight: of the score, 0..1.
        k: length of the lists.

    Returns:
        Items [B, K] int64, and the value that each was chosen by [B, K] float64, which never increases along a list.
    """
    vectors = genres.astype(np.float32)
    n_genres = genres.sum(axis=1)  # [I]
    rows, places = np.arange(len(candidates.items)), np.maximum(candidates.items - 1, 0)
    relevance = np.where(candidates.is_real, weight * candidates.scores.astype(np.float64), -np.inf)
    similarity = np.zeros(relevance.shape)  # largest to the items chosen so far, [B, C]
    items = np.empty((len(rows), k), dtype=np.int64)
    values = np.empty((len(rows), k))
    for step in range(k):
        value = relevance - (1 - weight) * similarity
        chosen = value.argmax(axis=1)  # [B]
        items[:, step], values[:, step] = candidates.items[rows, chosen], value[rows, chosen]
        relevance[rows, chosen] = -np.inf
        last = items[:, step] - 1
        shared = np.take_along_axis(vectors[last] @ vectors.T, places, axis=1)  # exact, as ties have to be: counts
        product = n_genres[last, None] * n_genres[places]
        np.maximum(similarity, shared / np.sqrt(np.maximum(product, 1)), out=similarity)
    return items, values


def greedy_pcount(
    candidates: Candidates, popularity: np.ndarray, weight: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the K largest of weight * score - (1 - weight) * popularity, equal values by the better score.

    Weight 1 gives the base model's list, weight 0 the least popular candidates. The paper takes raw scores and the
    item's share of the interactions for its popularity. In the fair scaling scores are min-max scaled and popularity
    is the share divided by the largest one: the list is then that of score - w * popularity with w = 1 / weight - 1.

    Args:
        candidates: at least k in each row.
        popularity: [I] float, larger is more popular.
        weight: of the score, 0..1.
        k: length of the lists.

    Returns:
        Items [B, K] int64, and the value that each was chosen by [B, K] float64.
    """
    charges = popularity[np.maximum(candidates.items - 1, 0)]  # [B, C]
    value = weight * candidates.scores.astype(np.float64) - (1 - weight) * charges
    order = np.argsort(np.where(candidates.is_real, -value, np.inf), axis=1, kind="stable")[:, :k]  # [B, K]
    return np.take_along_axis(candidates.items, order, axis=1), np.take_along_axis(value, order, axis=1)


def greedy_ild(candidates: Candidates, genres: np.ndarray, weight: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose lists one item at a time, each by what it adds to a weighted sum of NDCG and ILD.

    The i-th item is the arg max of weight * score / log2(i + 1) + (1 - weight) * (sum of cosine distances of genres to
    the items chosen before) / (K (K - 1)), equal values by the better score. With softmax scores these are the expected
    immediate rewards of Table 1, so this is what a policy would do that knows the goal and believes the base model, but
    doesn't plan ahead; the goal ndcg=1,ild=L is the weight 1 / (1 + L). Weight 1 gives the base model's list.

    Args:
        candidates: at least k in each row.
        genres: [I, n_genres] bool, from the catalogue; an item without genres is like no other.
        weight: of the score, 0..1.
        k: length of the lists.

    Returns:
        Items [B, K] int64, and the value that each was chosen by [B, K] float64.
    """
    rows, places = np.arange(len(candidates.items)), np.maximum(candidates.items - 1, 0)
    relevance = np.where(candidates.is_real, weight * candidates.scores.astype(np.float64), -np.inf)
    directions = genre_directions(np.arange(1, len(genres) + 1), genres)  # [I, n_genres]
    total = np.zeros((len(rows), genres.shape[1]))  # of the chosen items' directions
    items = np.empty((len(rows), k), dtype=np.int64)
    values = np.empty((len(rows), k))
    for step, discount in enumerate(discounts(k)):
        distances = step - np.take_along_axis(total @ directions.T, places, axis=1)
        value = discount * relevance + (1 - weight) / max(k * (k - 1), 1) * distances
        chosen = value.argmax(axis=1)  # [B]
        items[:, step], values[:, step] = candidates.items[rows, chosen], value[rows, chosen]
        relevance[rows, chosen] = -np.inf
        total += directions[items[:, step] - 1]
    return items, values


@dataclass(frozen=True)
class Reranker:
    """A way to rerank.

    Attributes:
        choose: from at least k candidates a row, what they are weighed against, the weight of the score and k, the
            items [B, K] int64 and the values that they were chosen by [B, K] float64.
        against: what `choose` gets: `genres`, [I, n_genres] bool, or `popularity`, the items' share of the training
            interactions [I] float64, which min-max scaling divides by the largest.
    """

    choose: Callable[[Candidates, np.ndarray, float, int], tuple[np.ndarray, np.ndarray]]
    against: Literal["genres", "popularity"]


RERANKERS = {
    "mmr": Reranker(mmr, "genres"),
    "ild": Reranker(greedy_ild, "genres"),
    "pcount": Reranker(greedy_pcount, "popularity"),
}
"""By what settings call them; a new one is a function and a line here (docs/extending.md)."""
