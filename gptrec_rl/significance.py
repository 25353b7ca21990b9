"""Tests of significance: paired two-sided t-tests over users against one baseline, with Bonferroni's correction.

They know the spread between users alone; what another seed of training would have given is another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.metrics import metric

ALPHA = 0.05
CONFIDENCE = 0.95

Verdict = Literal["better", "worse"]


@dataclass(frozen=True)
class Comparison:
    """One model against the baseline in one metric.

    Attributes:
        model: the model's name.
        baseline: the baseline's name.
        metric: such as `NDCG@10`.
        difference: mean over users of the model's value less the baseline's.
        low: lower end of the difference's 95 % confidence interval (t distribution, not corrected).
        high: its upper end.
        p: two-sided p-value, multiplied by the number of tests, at most 1.
        n_tests: the number of tests that p is corrected for.
    """

    model: str
    baseline: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    n_tests: int

    @property
    def verdict(self) -> Verdict | None:
        """Say whether the model is significantly better or worse in the metric's own direction; None for neither."""
        if self.p >= ALPHA:
            return None
        return "better" if (self.difference > 0) == metric(self.metric).higher_is_better else "worse"


def compare(
    tables: Sequence[EvaluationTable], baseline: EvaluationTable, metric_names: Sequence[str]
) -> list[Comparison]:
    """Test models against a baseline in each of some metrics.

    A metric that isn't defined for all users (ILD without genres) is left out and is no test. Name PCOUNT or nPCOUNT,
    not both: they differ by a factor, and the same test twice costs every other one power.

    Args:
        tables: the models, without the baseline.
        baseline: what they are compared with.
        metric_names: keys of the tables' `per_user`.

    Returns:
        A comparison for each table and metric, in their order, corrected for all that are returned.

    Raises:
        InputError: a table doesn't compare with the baseline, or there are fewer than 2 users.
    """
    if len(baseline.user_ids) < 2:
        raise InputError(
            f"{len(baseline.user_ids)} user shows no spread to test {baseline.name} by; evaluate 2 or more"
        )
    for table in tables:
        table.require_comparable(baseline)
    pairs = [(table, name) for table in tables for name in metric_names if _is_defined(table, baseline, name)]
    return [_test(table, baseline, name, len(pairs)) for table, name in pairs]


def _is_defined(table: EvaluationTable, baseline: EvaluationTable, name: str) -> bool:
    return not np.isnan(table.per_user[name] - baseline.per_user[name]).any()


def _test(table: EvaluationTable, baseline: EvaluationTable, name: str, n_tests: int) -> Comparison:
    ours, theirs = table.per_user[name], baseline.per_user[name]
    if np.array_equal(ours, theirs):  # no spread and no difference: t would be 0 / 0
        difference, low, high, p = 0.0, 0.0, 0.0, 1.0
    else:
        result = stats.ttest_rel(ours, theirs)
        interval = result.confidence_interval(CONFIDENCE)
        difference, low, high, p = (ours - theirs).mean(), interval.low, interval.high, result.pvalue
    return Comparison(
        model=table.name,
        baseline=baseline.name,
        metric=name,
        difference=float(difference),
        low=float(low),
        high=float(high),
        p=min(1.0, float(p) * n_tests),
        n_tests=n_tests,
    )
