"""What the results of a study say: Table 3's lines beside the published ones, tested against one row, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.config import Rerank, RowConfig
from gptrec_rl.experiments.published import Published
from gptrec_rl.experiments.results import Point, Result
from gptrec_rl.experiments.study import Made, Study
from gptrec_rl.metrics import Metric, metrics_at
from gptrec_rl.significance import Comparison, compare


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        row_id: of the row.
        row: its configuration.
        made: one a seed; none where the row has not been run.
        table: means over the seeds, user by user, of the row's own strategy; None where it has not been run.
        published: None where nothing was.
        comparisons: with the baseline, by metric name; empty for the baseline itself and without one.
    """

    row_id: str
    row: RowConfig
    made: Sequence[Made]
    table: EvaluationTable | None
    published: Published | None
    comparisons: Mapping[str, Comparison]

    @property
    def results(self) -> list[Result]:
        """The facts of each seed."""
        return [made.result for made in self.made]


@dataclass(frozen=True)
class Curve:
    """A reranker's points.

    Attributes:
        row_id: of the row.
        row: its configuration.
        made: None where it has not been run.
    """

    row_id: str
    row: RowConfig
    made: Made | None

    @property
    def rerank(self) -> Rerank:
        """How it was reranked."""
        assert self.row.rerank is not None
        return self.row.rerank

    @property
    def points(self) -> list[Point]:
        """In the order of their weights; none where it has not been run."""
        if self.made is None:
            return []
        return sorted(self.made.result.points.values(), key=lambda point: point.weight or 0.0)


@dataclass(frozen=True)
class Evidence:
    """All that a study has to show.

    Attributes:
        study: of which.
        lines: models, in the order of the table.
        curves: rerankers.
        baseline: the row that the others are tested against; None where it has not been run, or there is none.
    """

    study: Study
    lines: Sequence[Line]
    curves: Sequence[Curve]
    baseline: Line | None

    @property
    def metrics(self) -> list[Metric]:
        """The columns of Table 3."""
        return [
            metric for metric in metrics_at(self.study.experiments.dataset.k) if not metric.name.startswith("PCOUNT")
        ]

    @property
    def run(self) -> list[Line]:
        """The lines that have a result."""
        return [line for line in self.lines if line.table is not None]

    def line(self, row_id: str) -> Line | None:
        """Return a row's line if it has a result."""
        return next((line for line in self.run if line.row_id == row_id), None)

    @classmethod
    def of(cls, study: Study) -> Evidence:
        """Read all results; errors as in `Study.made`."""
        experiments = study.experiments
        made = study.made()
        lines = [
            Line(row_id, row, made[row_id], _over_seeds(row_id, made[row_id]), experiments.published.get(row_id), {})
            for row_id, row in experiments.rows.items()
            if row.rerank is None
        ]
        curves = [
            Curve(row_id, row, made[row_id][0] if made[row_id] else None)
            for row_id, row in experiments.rows.items()
            if row.rerank is not None
        ]
        evidence = cls(study, lines, curves, None)
        baseline = evidence.line(experiments.dataset.baseline)
        return replace(evidence, lines=_tested(evidence, baseline), baseline=baseline)


def _over_seeds(row_id: str, made: Sequence[Made]) -> EvaluationTable | None:
    """Average the row's own tables over its seeds, user by user; the ranks are those of the first."""
    if not made:
        return None
    tables = [next(iter(each.tables.values())) for each in made]
    first = tables[0]
    return replace(
        first,
        name=row_id,
        per_user={name: np.mean([table.per_user[name] for table in tables], axis=0) for name in first.per_user},
        overall={name: float(np.mean([table.overall[name] for table in tables])) for name in first.overall},
    )


def _tested(evidence: Evidence, baseline: Line | None) -> list[Line]:
    if baseline is None or baseline.table is None:
        return list(evidence.lines)
    others = [line.table for line in evidence.lines if line.table is not None and line is not baseline]
    found: dict[str, dict[str, Comparison]] = {}
    for comparison in compare(others, baseline.table, [metric.name for metric in evidence.metrics]):
        found.setdefault(comparison.model, {})[comparison.metric] = comparison
    return [replace(line, comparisons=found.get(line.row_id, {})) for line in evidence.lines]
