"""What the metric dictionary says of a name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
