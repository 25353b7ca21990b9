"""Tables of evaluated models, as aligned text for the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.metrics import METRICS, metric
from gptrec_rl.reporting.grids import Grid

METRIC_NAMES = tuple(known.name for known in METRICS)
UNDEFINED = "-"


@dataclass(frozen=True)
class Row:
    """One model in a table or picture.

    Attributes:
        name: what it is called.
        values: means by metric name; NaN or absent where not defined.
        errors: their standard errors.
        group: teacher, student, tuned, ...: models of one group look alike in pictures.
    """

    name: str
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    group: str = ""

    @classmethod
    def of(cls, table: EvaluationTable, group: str = "") -> Row:
        """Make a row of an evaluation."""
        return cls(table.name, table.summary(), table.standard_errors(), group)


def text_table(rows: Sequence[Row], metric_names: Sequence[str] = METRIC_NAMES, *, with_errors: bool = False) -> str:
    """Align the rows in columns, with an arrow for each metric's direction; standard errors follow on request."""
    header, *lines = _cells(rows, metric_names, with_errors)
    return Grid(header, lines).text()


def markdown_table(
    rows: Sequence[Row], metric_names: Sequence[str] = METRIC_NAMES, *, with_errors: bool = False
) -> str:
    """Make a Markdown table; with several rows, the best value of each column is bold."""
    cells = _cells(rows, metric_names, with_errors)
    for column, name in enumerate(metric_names, start=1):
        for place in _best(rows, name):
            cells[place + 1][column] = f"**{cells[place + 1][column]}**"
    return Grid(cells[0], cells[1:]).markdown()


def _cells(rows: Sequence[Row], metric_names: Sequence[str], with_errors: bool) -> list[list[str]]:
    header = ["Model", *(f"{name} {metric(name).arrow}" for name in metric_names)]
    return [header, *([row.name, *(_cell(row, name, with_errors) for name in metric_names)] for row in rows)]


def _cell(row: Row, name: str, with_errors: bool) -> str:
    value, error = row.values.get(name, math.nan), row.errors.get(name, math.nan)
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.4f} ± {error:.4f}" if with_errors and not math.isnan(error) else f"{value:.4f}"


def _best(rows: Sequence[Row], name: str) -> list[int]:
    """Places of the rows whose value, as printed, is the best of several."""
    sign = 1.0 if metric(name).higher_is_better else -1.0
    values = {place: round(sign * row.values.get(name, math.nan), 4) for place, row in enumerate(rows)}
    defined = {place: value for place, value in values.items() if not math.isnan(value)}
    return [place for place, value in defined.items() if len(rows) > 1 and value == max(defined.values())]
