"""The metric dictionary, `dictionary.toml`: what each name in `names` means, its unit, healthy range and remedy.

The exporter takes names and kinds from it, `gptrec-rl doctor` ranges and remedies; the tables of `docs/metrics.md` are
written by `python -m gptrec_rl.telemetry.dictionary`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["gauge", "rate", "counter"]


@dataclass(frozen=True)
class Range:
    """Values from low to high, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Meaning:
    """What the dictionary says of a name.

    Attributes:
        unit: of the values.
        exported: name in Prometheus.
        text: what is measured.
        remedy: what to do when the value isn't healthy, or looks odd.
        healthy: where values of a run that goes well lie; in words where that depends on the run.
        kind: a gauge holds until the next value; a rate is 0 in a record without it; a counter only grows.
    """

    unit: str
    exported: str
    text: str
    remedy: str
    healthy: Range | str
    kind: Kind = "gauge"


def _meaning(healthy: str | dict[str, float], **fields: Any) -> Meaning:
    return Meaning(healthy=healthy if isinstance(healthy, str) else Range(**healthy), **fields)


_FILE = files(__package__).joinpath("dictionary.toml")
DICTIONARY: Mapping[str, Meaning] = {
    name: _meaning(**fields) for name, fields in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()
}

_PATTERNS = {
    re.compile(re.sub("<(metric|what)>", r"(?P<\1>[^@]+)", name).replace("<k>", r"(?P<k>\d+)")): meaning
    for name, meaning in DICTIONARY.items()
    if "<" in name
}


@dataclass(frozen=True)
class Described:
    """A name as the dictionary knows it.

    Attributes:
        meaning: of the name.
        labels: what fills the places in angle brackets.
    """

    meaning: Meaning
    labels: Mapping[str, str]


def describe(name: str) -> Described | None:
    """Look a name up; None for one that the dictionary lacks.

    Example:
        >>> describe("val/ndcg@10/error").labels
        {'metric': 'ndcg', 'k': '10'}
    """
    if name in DICTIONARY:
        return Described(DICTIONARY[name], {})
    for pattern, meaning in _PATTERNS.items():
        if found := pattern.fullmatch(name):
            return Described(meaning, found.groupdict())
    return None


def table() -> str:
    """Return the dictionary in Markdown, one table for each first part of the names."""
    groups: dict[str, list[str]] = {}
    for name, meaning in DICTIONARY.items():
        cells = [f"`{name}`<br>`{meaning.exported}`", meaning.unit, meaning.text, str(meaning.healthy), meaning.remedy]
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        groups.setdefault(name.partition("/")[0], []).append(f"| {row} |")
    head = "| name, and in Prometheus | unit | meaning | healthy | when it isn't |\n|---|---|---|---|---|"
    return "\n\n".join("\n".join([f"### {group}", "", head, *rows]) for group, rows in groups.items()) + "\n"


if __name__ == "__main__":
    print(table(), end="")
