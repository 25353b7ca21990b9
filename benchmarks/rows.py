"""Kinds of rows: two ways in a race, or one alone against a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.figures import Figure, number, unmeasured
from benchmarks.measure import ChildError, Contest, Round, Way, contest
from gptrec_rl.models.precision import has_bf16


@dataclass(frozen=True)
class Setting:
    """What a call of the command is about.

    Attributes:
        data: the data file of MovieLens-1M; None: it is absent.
        student: folder of a trained student; None: there is none.
        cores: the cores to measure on.
        rounds: how often the ways take turns.
    """

    data: Path | None
    student: Path | None
    cores: Sequence[int]
    rounds: int

    @property
    def cuts(self) -> str:
        """What the random cuts are of."""
        return "b" if self.data is not None else "b, made up"


@dataclass(frozen=True)
class Statistic:
    """A figure that is read off a contest.

    Attributes:
        name: of the figure.
        bound: what the ratio of the two ways has to reach.
        measure: of a round; more is better.
        unit: of the measure.
        is_binding: whether the bound is meant for this row; it binds where the processor has bf16 units, too.
    """

    name: str
    bound: float
    measure: Callable[[Round], float]
    unit: str
    is_binding: bool = True

    def figure(self, result: Contest) -> Figure:
        """Compare the rounds of two ways pair by pair."""
        ours, plain = ([self.measure(turn) for turn in turns] for turns in result.rounds)
        ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
        rates = f"{number(float(np.median(ours)))} against {number(float(np.median(plain)))} {self.unit}"
        memory = " and ".join(number(peak) for peak in result.peak_memory)
        is_binding = self.is_binding and has_bf16(torch.device("cpu"))
        return Figure.of(self.name, ratios, "times", "at least", self.bound, f"{rates}; peak {memory} MB", is_binding)


@dataclass(frozen=True)
class Race:
    """Two ways of doing the same work.

    Attributes:
        ways: ours, the plain one.
        n_cores: what both may use.
        statistics: what is read off.
    """

    ways: tuple[Way, Way]
    n_cores: int
    statistics: Sequence[Statistic]

    def run(self, setting: Setting) -> list[Figure]:
        """Let the ways take turns."""
        if reason := _too_few(setting.cores, self.n_cores):
            return [unmeasured(each.name, "times", "at least", each.bound, reason) for each in self.statistics]
        try:
            result = contest(self.ways, setting.cores[: self.n_cores], setting.rounds)
        except ChildError as error:
            return [unmeasured(each.name, "times", "at least", each.bound, str(error)) for each in self.statistics]
        return [each.figure(result) for each in self.statistics]


@dataclass(frozen=True)
class Alone:
    """One way with a figure to reach.

    Attributes:
        name: of the figure.
        way: what is done.
        n_cores: what it may use.
        measure: of a round.
        unit: of the measure.
        sense: whether the bound is the least or the most.
        bound: what it has to reach.
        n_rounds: at most so many rounds.
    """

    name: str
    way: Way
    n_cores: int
    measure: Callable[[Round], float]
    unit: str
    sense: Literal["at least", "at most"]
    bound: float
    n_rounds: int

    def run(self, setting: Setting) -> list[Figure]:
        """Do the work a few times."""
        if reason := _too_few(setting.cores, self.n_cores):
            return [unmeasured(self.name, self.unit, self.sense, self.bound, reason)]
        try:
            result = contest([self.way], setting.cores[: self.n_cores], min(self.n_rounds, setting.rounds))
        except ChildError as error:
            return [unmeasured(self.name, self.unit, self.sense, self.bound, str(error))]
        values = [self.measure(turn) for turn in result.rounds[0]]
        notes = f"peak {number(result.peak_memory[0])} MB"
        return [Figure.of(self.name, values, self.unit, self.sense, self.bound, notes)]


def _too_few(cores: Sequence[int], wanted: int) -> str:
    """Say that a row can't be measured on so few cores; nothing if it can."""
    return f"this process may use {len(cores)} core{'s' * (len(cores) > 1)}" if len(cores) < wanted else ""


def rate(turn: Round) -> float:
    """Return units per second."""
    return turn.rate


def promptness(share: float) -> Callable[[Round], float]:
    """Return a measure: calls per second if all took as long as the one at a percentile."""
    return lambda turn: 1 / float(np.percentile(turn.seconds, share))
