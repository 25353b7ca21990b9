"""Who wins on a goal: tuned models against their student and the best point of each reranker, user by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.evidence import Curve, Evidence, Line
from gptrec_rl.experiments.goal_values import goal_value, is_measured, measured_goal
from gptrec_rl.experiments.sets import lineage
from gptrec_rl.goals import parse_goal
from gptrec_rl.significance import Comparison, compare

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
    """A goal, the model that was tuned for it, what it started from, and who else there is, the best first."""

    goal: str
    tuned: str
    student: str
    contenders: Sequence[Contender]


def contests(evidence: Evidence) -> list[Contest]:
    """Return a contest for each tuned model that has been run: it, what it started from, and all rerankers.

    There is none on a goal with a reward that the tables have no metric for.
    """
    goals = [(line, measured_goal(line.row.tune.goal)) for line in evidence.run if line.row.tune is not None]
    return [_contest(evidence, line, goal) for line, goal in goals if is_measured(goal)]


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
    assert tuned.row.tune is not None
    student = experiments.rows[tuned.row.tune.student].name
    return Contest(goal, tuned.row.name, student, sorted(contenders, key=lambda each: -each.values[GOAL]))


def _best_for(curve: Curve, goal: str) -> list[str]:
    """Return the label of the curve's best point for a goal; nothing where it wasn't looked for."""
    points = curve.made.result.points if curve.made is not None else {}
    weights = parse_goal(goal).weights
    return [label for label, point in points.items() if weights in [parse_goal(each).weights for each in point.goals]]


def _scored(table: EvaluationTable, name: str, goal: str, k: int) -> EvaluationTable:
    """Add the goal's value to each user's."""
    return replace(table, name=name, per_user={**table.per_user, GOAL: goal_value(goal, table.per_user, k)})
