"""What was measured: figures with their bounds, as JSON beside the document, as a table, and against the last ones."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

COLUMNS = ("work", "bound", "now", "spread", "met", "last committed", "notes")
MISSING = "-"


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: the work.
        value: median over the rounds; None when it was not measured.
        low: smallest of the rounds.
        high: largest of the rounds.
        unit: `times`, `s`, `lists/s`, ...; empty for a plain number.
        bound: what it has to reach.
        sense: whether the bound is the least or the most.
        notes: rates and memory behind it, or why it was not measured.
        verdict: whether the bound is met.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    bound: float
    sense: Literal["at least", "at most"]
    notes: str = ""
    verdict: str = MISSING

    @classmethod
    def of(
        cls,
        name: str,
        values: Sequence[float],
        unit: str,
        sense: Literal["at least", "at most"],
        bound: float,
        notes: str = "",
        is_binding: bool = True,
    ) -> Figure:
        """Summarise the values of several rounds.

        Without `is_binding` the bound is meant for other hardware or for another row, and the figure is reported only.
        """
        median, low, high = float(np.median(values)), float(min(values)), float(max(values))
        is_met = median >= bound if sense == "at least" else median <= bound
        verdict = ("yes" if is_met else "no") if is_binding else "report only"
        return cls(name, median, low, high, unit, bound, sense, notes, verdict)

    def cells(self, last: Figure | None) -> list[str]:
        """Return the line of the table."""
        return [
            self.name,
            f"{self.sense} {number(self.bound)} {self.unit}".rstrip(),
            f"{number(self.value)} {self.unit}".rstrip(),
            MISSING if self.low is None else f"{number(self.low)} to {number(self.high)}",
            self.verdict,
            number(last.value) if last else MISSING,
            self.notes,
        ]


def unmeasured(name: str, unit: str, sense: Literal["at least", "at most"], bound: float, reason: str) -> Figure:
    """Return the figure of work that could not be done."""
    return Figure(name, None, None, None, unit, bound, sense, f"not measured: {reason}")


def number(value: float | None) -> str:
    """Write a number with three digits that count, thousands with commas."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(figures: Sequence[Figure], last: Mapping[str, Figure]) -> list[list[str]]:
    """Return the lines of the table, headings first."""
    return [list(COLUMNS), *(figure.cells(last.get(figure.name)) for figure in figures)]


@dataclass(frozen=True)
class Results:
    """All that has been measured, over several calls if need be.

    Attributes:
        machine: what it was measured on.
        figures: by name.
        curves: the points of each curve (`benchmarks.curves.Point`), by what grows.
        stages: what the machine can do, in words, then the rows of `benchmarks.stages.table`.
    """

    machine: str
    figures: Mapping[str, Figure]
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    stages: Sequence[Sequence[str]] = field(default_factory=list)

    @classmethod
    def read(cls, content: str) -> Results:
        """Read what `json` returned."""
        facts = json.loads(content)
        figures = {facts["name"]: Figure(**facts) for facts in facts["figures"]}
        return cls(facts["machine"], figures, facts["curves"], facts["stages"])

    def json(self) -> str:
        """Return all of it as JSON."""
        figures = [asdict(figure) for figure in self.figures.values()]
        facts = {"machine": self.machine, "figures": figures, "curves": self.curves, "stages": self.stages}
        return json.dumps(facts, indent=2) + "\n"


def read_results(path: Path) -> Results | None:
    """Return what a file holds; None where there is none."""
    return Results.read(path.read_text(encoding="utf-8")) if path.exists() else None


def comparison(last: Results | None, machine: str) -> str:
    """Say what the last committed figures are of, seen from a machine."""
    if last is None:
        return "No figures have been committed before."
    if last.machine == machine:
        return "The last committed figures are of this machine."
    return f"The last committed figures are of another machine, {last.machine}; only ratios compare the code."


def last_committed(path: Path) -> Results | None:
    """Return what the last commit holds at a path; None outside a checkout or before the first one."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, text=True, check=False
    )
    return Results.read(shown.stdout) if shown.returncode == 0 else None
