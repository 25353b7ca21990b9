"""Evaluation on held-out items: ranks, a value per user and metric, means and standard errors, paired differences.

The same code serves `gptrec-rl evaluate`, the validator and every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gptrec_rl import metrics
from gptrec_rl.data import Cases, Histories, Split
from gptrec_rl.data.histories import locked
from gptrec_rl.errors import InputError
from gptrec_rl.models.markov import PopularityRecommender
from gptrec_rl.recommender import Recommender, batches

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """Mean over users of a paired difference, and its standard error."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class EvaluationTable:
    """What a recommender did for each of B users.

    Attributes:
        name: the recommender's name in tables.
        k: length of the lists.
        split_hash: which split it was measured on; tables of different splits don't compare.
        user_ids: external ids, [B] str.
        per_user: values by metric name, each [B] float64, of those in `gptrec_rl.metrics.DEFINITIONS` that every list
            has; ILD is NaN for a list with an item without genres.
        ranks: rank of the held-out item, 1..K, or 0 where it isn't in the list, [B] int64; NDCG at every cutoff up to K
            follows (`gptrec_rl.metrics.ndcg_of_ranks`).
        overall: metrics that all lists have together, such as Coverage, by name.
        n_invalid: recommended items that the history holds or that the list already has; 0 for a right recommender.
    """

    name: str
    k: int
    split_hash: str
    user_ids: np.ndarray
    per_user: Mapping[str, np.ndarray]
    ranks: np.ndarray
    overall: Mapping[str, float]
    n_invalid: int

    def summary(self) -> dict[str, float]:
        """Return the mean of each metric over the users, and the metrics of all lists together."""
        return {name: float(values.mean()) for name, values in self.per_user.items()} | dict(self.overall)

    def standard_errors(self) -> dict[str, float]:
        """Return the standard error of each mean (nPCOUNT's denominator counts as fixed).

        It is NaN for a single user, and for the metrics of all lists together.
        """
        errors = {name: _standard_error(values) for name, values in self.per_user.items()}
        return errors | dict.fromkeys(self.overall, float("nan"))

    def difference(self, baseline: EvaluationTable) -> dict[str, Difference]:
        """Return this table minus another, user by user.

        Raises:
            InputError: the tables don't compare.
        """
        self.require_comparable(baseline)
        differences = {name: values - baseline.per_user[name] for name, values in self.per_user.items()}
        return {name: Difference(float(d.mean()), _standard_error(d)) for name, d in differences.items()}

    def require_valid(self) -> None:
        """Refuse figures of lists that no recommender may make.

        Raises:
            InputError: an item was in the user's history, or twice in a list.
        """
        if self.n_invalid:
            raise InputError(
                f"{self.name} recommended {self.n_invalid:,} items that the user's history or the list already held; "
                "its figures would mean nothing: fix its recommend"
            )

    def require_comparable(self, baseline: EvaluationTable) -> None:
        """Refuse to pair the users of two tables that don't belong together.

        Raises:
            InputError: the other is of another split, other users, or lists of another length.
        """
        for what in ("split_hash", "k"):
            mine, theirs = getattr(self, what), getattr(baseline, what)
            if mine != theirs:
                raise InputError(
                    f"{self.name} and {baseline.name} don't compare: {what} is {mine} and {theirs}; "
                    "evaluate both on the same data and K"
                )
        if not np.array_equal(self.user_ids, baseline.user_ids):
            raise InputError(f"{self.name} and {baseline.name} don't compare: they were evaluated on different users")


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def evaluate(
    recommender: Recommender,
    cases: Cases,
    split: Split,
    *,
    name: str,
    k: int = 10,
    progress: Progress | None = None,
) -> EvaluationTable:
    """Ask a recommender for each user's held-out item.

    Args:
        recommender: a model or reranker.
        cases: `split.test` or `split.validation`.
        split: gives frequencies, genres and the popularity model that nPCOUNT is relative to.
        name: the recommender's name in tables.
        k: length of the lists.
        progress: called with the users done and their total after each batch.

    Raises:
        InputError: there are no users, one of them has fewer than K items left, or the recommender returns another
            shape or item numbers outside 1..I.
    """
    _require_room(cases, split, k)
    items = lists_of(recommender, cases.histories, split, name, k, progress)
    return measure(items, cases, split, name=name)


def measure(items: np.ndarray, cases: Cases, split: Split, *, name: str) -> EvaluationTable:
    """Measure lists that were already made.

    Args:
        items: one list a user, [B, K] int, in 1..I.
        cases: the users, their histories and held-out items.
        split: as in `evaluate`.
        name: the recommender's name in tables.

    Raises:
        InputError: there are no users.
    """
    if not len(items):
        raise InputError(f"there is no user to measure {name} on; give one or more")
    k = items.shape[1]
    lists = metrics.Lists(
        items=locked(items),
        ground_truth=locked(cases.ground_truth),
        popular=locked(lists_of(PopularityRecommender(split), cases.histories, split, "popularity", k)),
        genres=split.catalogue.genres,
        frequencies=locked(split.frequencies),
        n_users_of_item=locked(split.n_users_of_item),
        n_users=len(split.training),
    )
    values = {each.name: _measured(each.name, lists) for each in (*metrics.metrics_at(k), *metrics.beyond_at(k))}
    return EvaluationTable(
        name=name,
        k=k,
        split_hash=split.hash,
        user_ids=split.interactions.user_ids[cases.users],
        per_user={name: value for name, value in values.items() if isinstance(value, np.ndarray)},
        ranks=metrics.ranks(items, cases.ground_truth),
        overall={name: value for name, value in values.items() if not isinstance(value, np.ndarray)},
        n_invalid=count_invalid(items, cases.histories, split.catalogue.n_items),
    )


def _require_room(cases: Cases, split: Split, k: int) -> None:
    """Refuse, before any work is done, users whose history leaves fewer than K items; names the first."""
    n_items = split.catalogue.n_items
    busy = np.flatnonzero(n_items - cases.histories.lengths < k)
    if len(busy):
        user, length = split.interactions.user_ids[cases.users[busy[0]]], int(cases.histories.lengths[busy[0]])
        raise InputError(
            f"a list of K = {k} items can't be made for user {str(user)!r}, who has {length} of {n_items} items "
            f"({len(busy)} such users); leave them out (`cases.with_room`), or ask for a smaller K"
        )


def lists_of(
    recommender: Recommender,
    histories: Histories,
    split: Split,
    name: str,
    k: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """Ask a recommender for lists, a batch at a time, [B, K] int64; arguments and errors are those of `evaluate`."""
    items = np.empty((len(histories), k), dtype=np.int64)
    for rows in batches(len(histories), split.catalogue.n_items):
        lists = recommender.recommend(histories.take(rows), k).items
        items[rows] = _checked(lists, (len(rows), k), split, name)
        if progress is not None:
            progress(int(rows[-1]) + 1, len(histories))
    return items


def _checked(items: np.ndarray, shape: tuple[int, int], split: Split, name: str) -> np.ndarray:
    n_items = split.catalogue.n_items
    if items.shape != shape:
        raise InputError(
            f"{name} returned lists of shape {items.shape} where {shape} were asked for; fix its recommend"
        )
    outside = items[(items < 1) | (items > n_items)]
    if len(outside):
        raise InputError(
            f"{name} recommended item {outside[0]}, and item numbers go from 1 to {n_items} "
            f"({len(outside)} such in a batch of {shape[0]} users); fix its recommend"
        )
    return items


def count_invalid(items: np.ndarray, histories: Histories, n_items: int) -> int:
    """Count recommended items that the user's history holds or that stand earlier in the same list.

    Args:
        items: [B, K] int, in 1..I.
        histories: B whole histories.
        n_items: I.
    """
    return sum(_n_invalid(items[rows], histories.take(rows), n_items) for rows in batches(len(items), n_items))


def _n_invalid(items: np.ndarray, histories: Histories, n_items: int) -> int:
    pairs = np.arange(len(items))[:, None] * (n_items + 1) + items
    seen = np.isin(pairs, histories.pairs(n_items))
    equal = items[:, :, None] == items[:, None, :]  # [B, K, K]
    repeated = np.tril(equal, k=-1).any(axis=2)
    return int((seen | repeated).sum())


def _measured(name: str, lists: metrics.Lists) -> np.ndarray | float:
    """Measure what a name such as `NDCG@10` says."""
    definition, _, k = name.partition("@")
    return metrics.DEFINITIONS[definition].measure(lists, int(k))
