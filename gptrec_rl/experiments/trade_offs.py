"""Who wins on a goal: tuned models against their student and the best point of each reranker, user by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.config import lineage
from gptrec_rl.experiments.evidence import Curve, Evidence, Line
from gptrec_rl.goals import parse_goal
from gptrec_rl.significance import Comparison, compare

V = TypeVar("V", float, np.ndarray)

MEASURED_BY = {"ndcg": ("NDCG", 1.0), "ild": ("ILD", 1.0), "pcount": ("PCOUNT", -1.0)}
"""Reward -> the metric that it sums to over a list, and its sign."""
GOAL = "goal"


@dataclass(frozen=True)
class Contender:
    """One model or reranker on a goal.

    Attributes:
        name: with the weight, for a reranker.
        values: means by metric name, and `goal`.
        comparison: this one's goal less the tuned model's; None for the tuned model itself.
    """

    name: str
    values: Mapping[str, float]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Contest:
    """A goal, the model that was tuned for it, and who else there is, the best first."""

    goal: str
    tuned: str
    contenders: Sequence[Contender]


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


def contests(evidence: Evidence) -> list[Contest]:
    """Return a contest for each tuned model that has been run: it, what it started from, and all rerankers."""
    return [_contest(evidence, line, line.row.tune.goal) for line in evidence.run if line.row.tune is not None]


def _contest(evidence: Evidence, tuned: Line, goal: str) -> Contest:
    experiments = evidence.study.experiments
    k = experiments.dataset.k
    best = [(curve, label) for curve in evidence.curves for label in _best_for(curve, goal)]
    names = [*lineage(experiments, tuned.row_id), *(curve.rerank.base for curve, _ in best)]
    models = {line.row.name: line.table for line in evidence.run if line.row_id in names and line.table is not None}
    tables = {name: _scored(table, name, goal, k) for name, table in models.items()}
    for curve, label in best:
        assert curve.made is not None
        name = f"{curve.row.name}, weight {label}"
        tables[name] = _scored(curve.made.tables[label], name, goal, k)
    rivals = [table for name, table in tables.items() if name != tuned.row.name]
    comparisons = {each.model: each for each in compare(rivals, tables[tuned.row.name], [GOAL])}
    contenders = [Contender(name, table.summary(), comparisons.get(name)) for name, table in tables.items()]
    return Contest(goal, tuned.row.name, sorted(contenders, key=lambda each: -each.values[GOAL]))


def _best_for(curve: Curve, goal: str) -> list[str]:
    """Return the label of the curve's best point for a goal; nothing where it wasn't looked for."""
    points = curve.made.result.points if curve.made is not None else {}
    weights = parse_goal(goal).weights
    return [label for label, point in points.items() if weights in [parse_goal(each).weights for each in point.goals]]


def _scored(table: EvaluationTable, name: str, goal: str, k: int) -> EvaluationTable:
    """Add the goal's value to each user's."""
    return replace(table, name=name, per_user={**table.per_user, GOAL: goal_value(goal, table.per_user, k)})
