"""Who wins on a goal: tuned models against their student and the best point of each reranker, user by user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gptrec_rl.errors import InputError
from gptrec_rl.goals import parse_goal

V = TypeVar("V", float, np.ndarray)

MEASURED_BY = {"ndcg": ("NDCG", 1.0), "ild": ("ILD", 1.0), "pcount": ("PCOUNT", -1.0)}
"""Reward -> the metric that it sums to over a list, and its sign."""


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
        raise InputError(
            f"goal {goal!r} can't be told from the metrics: {unknown[0]} is none of {', '.join(MEASURED_BY)}"
        )
    parts = [
        weight * MEASURED_BY[reward][1] * values[f"{MEASURED_BY[reward][0]}@{k}"] for reward, weight in weights.items()
    ]
    return sum(parts[1:], start=parts[0])
