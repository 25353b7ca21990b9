"""What goals of stage 2 are worth on test users, as far as the tables' metrics tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gptrec_rl.errors import InputError
from gptrec_rl.goals import Goal, parse_goal

V = TypeVar("V", float, np.ndarray)

MEASURED_BY = {"ndcg": ("NDCG", 1.0), "ild": ("ILD", 1.0), "pcount": ("PCOUNT", -1.0)}
"""Reward -> the metric that it sums to over a list, and its sign."""


def measured_goal(goal: str) -> str:
    """Return what tables judge a goal by: the NDCG that comes true, where it was tuned for the expected one.

    Example:
        >>> measured_goal("ndcg=0.5,expected_ndcg=0.5,ild=1")
        'ndcg=1,ild=1'
    """
    weights: dict[str, float] = {}
    for reward, weight in parse_goal(goal).weights.items():
        name = "ndcg" if reward == "expected_ndcg" else reward
        weights[name] = weights.get(name, 0.0) + weight
    return str(Goal(weights))


def is_measured(goal: str) -> bool:
    """Tell whether the tables have a metric for each reward of a goal; errors as in `parse_goal`."""
    return parse_goal(goal).weights.keys() <= MEASURED_BY.keys()


def goal_value(goal: str, values: Mapping[str, V], k: int) -> V:
    """Return what a goal is worth on test users, from metrics that are known for each of them.

    Args:
        goal: as `parse_goal` reads it.
        values: by metric name, at K = k; means, or values per user.
        k: length of the lists.

    Raises:
        InputError: the goal has a reward that no metric of the table measures.

    Example:
        >>> round(goal_value("ndcg=1,ild=0.5", {"NDCG@10": 0.16, "ILD@10": 0.3}, 10), 3)
        0.31
    """
    weights = parse_goal(goal).weights
    unknown = [reward for reward in weights if reward not in MEASURED_BY]
    if unknown:
        known = ", ".join(MEASURED_BY)
        raise InputError(f"goal {goal!r} can't be told from the metrics: {unknown[0]} is none of {known}")
    total: V | None = None
    for reward, weight in weights.items():
        metric, sign = MEASURED_BY[reward]
        part = weight * sign * values[f"{metric}@{k}"]
        total = part if total is None else total + part
    assert total is not None  # a goal has a reward
    return total
