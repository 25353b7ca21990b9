"""Table 3 from a study's evidence: ours, the published value and the difference, in each format that people need."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gptrec_rl.experiments.evidence import Evidence, Line
from gptrec_rl.metrics import Metric
from gptrec_rl.significance import Comparison

Format = Literal["text", "markdown", "latex", "csv"]

NOT_RUN = "not run"
MARKS = {"better": "*+", "worse": "*-", None: ""}
CSV_COLUMNS = (
    "type", "model", "state", "metric", "value", "standard_error", "published", "difference", "against_baseline", "low",
    "high", "p", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One value of the table.

    Attributes:
        value: ours, or nothing.
        place: 1 for the best of the column, 2 for the second best, else 0.
        mark: `*+` where it is significantly better than the baseline, `*-` where worse.
        published: the published value, with the difference in percent where ours is known.
    """

    value: str = ""
    place: int = 0
    mark: str = ""
    published: str = ""


def paper_table(evidence: Evidence, style: Format) -> str:
    """Draw the table in one of the formats."""
    header = header_of(evidence)
    match style:
        case "text":
            return _text(header, cells_of(evidence))
        case "markdown":
            return _markdown(header, cells_of(evidence))
        case "latex":
            return f"{_origin(evidence)}\n{_latex(header, cells_of(evidence))}"
        case "csv":
            return _csv(evidence)


def header_of(evidence: Evidence) -> list[str]:
    """Return the names of the columns of values."""
    return [f"{metric.name} {metric.arrow}" for metric in evidence.metrics]


def title_of(evidence: Evidence) -> str:
    """Return what a study's tables and documents are headed by."""
    return f"{evidence.study.experiments.dataset.title}, budget {evidence.study.budget}"


def _origin(evidence: Evidence) -> str:
    """Say in a LaTeX comment what the table is of, and what its stars are against."""
    baseline = evidence.baseline
    stars = "no stars, without a baseline" if baseline is None else f"stars against {baseline.row.name}"
    return f"% {title_of(evidence)}; {stars}"


def cells_of(evidence: Evidence) -> list[tuple[Line, list[Cell]]]:
    """Return the lines of the table with their cells."""
    columns = [_column(evidence.lines, metric) for metric in evidence.metrics]
    return [(line, [column[place] for column in columns]) for place, line in enumerate(evidence.lines)]


def _column(lines: Sequence[Line], metric: Metric) -> list[Cell]:
    sign = -1.0 if metric.higher_is_better else 1.0
    values = [line.table.summary()[metric.name] if line.table is not None else None for line in lines]
    ranking = sorted({round(sign * value, 4) for value in values if value is not None and not math.isnan(value)})
    cells = []
    for line, value in zip(lines, values, strict=True):
        published = line.published.values.get(metric.name) if line.published is not None else None
        if value is None or math.isnan(value):
            cells.append(Cell("" if value is None else "-", published="" if published is None else f"{published:.4f}"))
            continue
        place = ranking.index(round(sign * value, 4)) + 1
        comparison = line.comparisons.get(metric.name)
        cells.append(
            Cell(
                f"{value:.4f}",
                place if place <= 2 and len(ranking) > 1 else 0,
                MARKS[comparison.verdict] if comparison is not None else "",
                "" if published is None else f"{published:.4f} ({(value - published) / published:+.1%})",
            )
        )
    return cells


def _text(header: Sequence[str], lines: list[tuple[Line, list[Cell]]]) -> str:
    table = [["Model", *header]]
    for line, cells in lines:
        ours = [f"{cell.value}{('', '¹', '²')[cell.place]}{cell.mark}" for cell in cells]
        table.append([line.row.name, *(ours if line.made else [NOT_RUN, *ours[1:]])])
        if any(cell.published for cell in cells):
            table.append(["  published", *(cell.published for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligned = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def _markdown(header: Sequence[str], lines: list[tuple[Line, list[Cell]]]) -> str:
    table = [["Type", "Model", *header], ["---", "---", *["---:"] * len(header)]]
    for line, cells in lines:
        shown = [_markdown_cell(cell) for cell in cells]
        if not line.made:
            shown = [f"{NOT_RUN}{cell}" for cell in shown]
        table.append([line.row.type, line.row.name, *shown])
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def _markdown_cell(cell: Cell) -> str:
    before, after = (("", ""), ("**", "**"), ("<ins>", "</ins>"))[cell.place]
    ours = f"{before}{cell.value}{after}{cell.mark.replace('*', chr(92) + '*')}"
    return f"{ours}<br>{cell.published}" if cell.published else ours


def _latex(header: Sequence[str], lines: list[tuple[Line, list[Cell]]]) -> str:
    names = [name.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for name in header]
    body = []
    for line, cells in lines:
        ours = [_latex_cell(cell) for cell in cells] if line.made else [NOT_RUN, *[""] * (len(cells) - 1)]
        body.append(" & ".join([_escaped(line.row.type), _escaped(line.row.name), *ours]) + r" \\")
        if any(cell.published for cell in cells):
            published = [rf"\footnotesize {_escaped(cell.published)}" for cell in cells]
            body.append(" & ".join(["", r"\footnotesize published", *published]) + r" \\")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{ll{'r' * len(header)}}}",
            r"\hline",
            " & ".join(["Model type", "Model", *names]) + r" \\",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
        ]
    )


def _escaped(words: str) -> str:
    return re.sub(r"([&%#_])", r"\\\1", words)


def _latex_cell(cell: Cell) -> str:
    value = (cell.value, rf"\textbf{{{cell.value}}}", rf"\underline{{{cell.value}}}")[cell.place]
    return f"{value}$^{{{cell.mark}}}$" if cell.mark else value


def _csv(evidence: Evidence) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in evidence.lines:
        values = line.table.summary() if line.table is not None else {}
        errors = line.table.standard_errors() if line.table is not None else {}
        published = line.published.values if line.published is not None else {}
        for name in [metric.name for metric in evidence.metrics]:
            value, known = values.get(name), published.get(name)
            difference = value - known if value is not None and known is not None else None
            facts = [value, errors.get(name), known, difference, *_facts(line.comparisons.get(name))]
            words = [line.row.type, line.row.name, "run" if line.made else NOT_RUN, name]
            writer.writerow([*words, *("" if fact is None else fact for fact in facts)])
    return out.getvalue()


def _facts(comparison: Comparison | None) -> list[float | str | None]:
    if comparison is None:
        return [None] * 5
    return [comparison.difference, comparison.low, comparison.high, comparison.p, comparison.verdict]
