"""The protocol that every model and reranker obeys, and the one rule by which scores become lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gptrec_rl.data.histories import Histories
from gptrec_rl.errors import InputError

Strategy = Literal["next-k", "top-k"]
"""Item by item, or all at once by score (section 2.2)."""
MOST_USERS = 256
SCORES_AT_ONCE = 2**23
"""Scores of users x items that are in memory together: 32 MB, and a few times that while they are ranked."""
HistoriesLike = Histories | Iterable[Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class Slates:
    """Recommended lists, best first.

    Attributes:
        items: [B, K] int64, item numbers 1..I; never an item of the history, none twice.
        scores: [B, K] float32, whatever the model ranks by (for Next-K the item's log-probability).
    """

    items: np.ndarray
    scores: np.ndarray


class Recommender(Protocol):
    """Anything that recommends."""

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend K items a history.

        Args:
            histories: whole, untruncated histories; one of length 0 is a new user.
            k: length of the lists.
            allowed: [I] or [B, I] bool, column i - 1 says whether item i may be recommended; None allows all.

        Raises:
            InputError: a history leaves fewer than K items to recommend.
        """
        ...


class ScoringRecommender(Recommender, Protocol):
    """A recommender that gives each item a score that doesn't depend on the rest of the list (Top-K)."""

    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return a score for every item, larger is better, [B, I] float32; column i - 1 is item i."""
        ...


def candidates(histories: Histories, n_items: int, k: int, allowed: np.ndarray | None) -> np.ndarray:
    """Return which items may be recommended: allowed and not in the whole history, [B, I] bool.

    Raises:
        InputError: fewer than K are left for some history.
    """
    may = ~histories.contains(n_items)
    if allowed is not None:
        if np.asarray(allowed).dtype != bool or np.shape(allowed) not in ((n_items,), may.shape):
            given = f"{np.asarray(allowed).dtype} of shape {np.shape(allowed)}"
            raise InputError(f"allowed is {given}; give bool of shape {(n_items,)} or {may.shape}")
        may &= allowed
    require_room(may.sum(axis=1), n_items, k)
    return may


def require_room(n_left: np.ndarray, n_items: int, k: int) -> None:
    """Refuse histories that leave fewer than K items to recommend, [B] int.

    Raises:
        InputError: names the one that leaves fewest, by its place among them.
    """
    if len(n_left) and n_left.min() < k:
        worst = int(n_left.argmin())
        raise InputError(
            f"a list of K = {k} items can't be made for history {worst}, which leaves {n_left[worst]} of {n_items} "
            "items to recommend; ask for a smaller K or allow more items"
        )


def batches(n_users: int, n_items: int) -> Iterator[np.ndarray]:
    """Cut users into batches whose scores of all items fit into memory, [b] int64 each: at most 256 users."""
    size = max(1, min(MOST_USERS, SCORES_AT_ONCE // max(n_items, 1)))
    for start in range(0, n_users, size):
        yield np.arange(start, min(start + size, n_users))


def top_k(scores: np.ndarray, may: np.ndarray, k: int) -> Slates:
    """Rank the candidates by score, equal scores by the smaller item number.

    Args:
        scores: [B, I] float32.
        may: [B, I] bool, True where the item is a candidate; at least K a row.
        k: length of the lists.
    """
    masked = np.where(may, scores, np.float32(-np.inf))
    threshold = -np.partition(-masked, k - 1, axis=1)[:, k - 1 : k]
    rows, places = np.nonzero(may & (masked >= threshold))  # the best K of each row, and all that tie with the K-th
    order = np.lexsort((-masked[rows, places], rows))  # stable: the smaller number stays in front
    first = np.searchsorted(rows, np.arange(len(masked)))
    best = places[order[first[:, None] + np.arange(k)]]  # [B, K]
    return Slates(best + 1, np.take_along_axis(masked, best, axis=1))
