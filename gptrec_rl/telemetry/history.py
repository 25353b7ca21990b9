"""The history of a tuning run, from the `metrics.jsonl` in its folder: of a finished run, or of one that goes on."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from gptrec_rl.errors import InputError
from gptrec_rl.metrics import DEFINITIONS
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.stream import MetricRecord, parse_record
from gptrec_rl.transport.messages import MessageError

METRICS_FILE = "metrics.jsonl"
LONGEST_PAUSE_S = 60.0
"""Silence beyond this between two records is a run that had stopped, and is not counted as time spent."""
LONGEST_LINE = 2**16
N_RECENT = 12
"""So many records of a process are recent: about the last minute."""

_NAMES = {name.lower(): name for name in DEFINITIONS}


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the validator measured of one policy.

    Attributes:
        step: learner steps behind the policy.
        minutes: since tuning started.
        reward: mean reward over the validation users.
        values: means by metric name.
        errors: their standard errors.
    """

    step: int
    minutes: float
    reward: float
    values: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoredPolicy(Validation):
    """What it measured of a published policy.

    Attributes:
        token: fencing token of the optimiser that published it.
        version: of the policy.
    """

    token: int
    version: int


@dataclass(frozen=True)
class TrainingReward:
    """The optimiser's mean reward around one step."""

    token: int
    step: int
    reward: float


class RunHistory:
    """What a run has done so far; a record more at a time.

    What an optimiser did beyond the step that the next one went on from was lost, and is left out.

    Attributes:
        validations: the scored policies, in the order of their steps.
        best: the policy that the validator marked as the best one, None before the first.
        rewards: the optimiser's mean rewards, in the order of their steps.
        recent: the last records of each process, by role and index.
        token: fencing token of the optimiser heard last.
        step: the newest learner step.
        stepped_at: time of the record that first had it, or of the first one of the optimiser that has it.
        n_quarantined: generators that were put into quarantine.
        quarantined_at: time of the record that first had as many; None while there is none.
        progress: used share of the run's budget, 0..1 and a little beyond.
        seconds: time spent, without that in which the run had stopped.
        heard_at: time of the last record, in seconds since the epoch; None before the first.
    """

    def __init__(self) -> None:
        self.validations: list[ScoredPolicy] = []
        self.best: ScoredPolicy | None = None
        self.rewards: list[TrainingReward] = []
        self.recent: dict[tuple[str, int], deque[MetricRecord]] = defaultdict(lambda: deque(maxlen=N_RECENT))
        self.token = 0
        self.step = 0
        self.stepped_at: float | None = None
        self.n_quarantined = 0.0
        self.quarantined_at: float | None = None
        self.progress = 0.0
        self.seconds = 0.0
        self.heard_at: float | None = None

    @classmethod
    def read(cls, run_dir: Path) -> RunHistory:
        """Read all that a run folder has.

        Raises:
            InputError: a line of the file is not a record.
        """
        return RunFollower(run_dir).refresh()

    @property
    def is_finished(self) -> bool:
        """Whether the budget is used and the last policy is scored."""
        return self.progress >= 1 and bool(self.validations) and self.validations[-1].step >= self.step

    @property
    def best_is_the_student(self) -> bool:
        """Whether no policy has beaten what the run started from, which is scored first and has learned no step."""
        return self.best is not None and self.best.step == 0

    def add(self, record: MetricRecord) -> None:
        """Add the next record."""
        before = record.time if self.heard_at is None else self.heard_at
        self.heard_at = max(before, record.time)
        self.seconds += min(self.heard_at - before, LONGEST_PAUSE_S)
        said = self.recent[record.role, record.id]
        if not record.values:  # a sign of life from long work: what was said last holds
            said.extend([replace(said.pop(), time=record.time)] if said else [record])
            return
        said.append(record)
        if record.role == "optimiser":
            self._add_optimiser(record)
        elif names.VAL_VERSION in record.values:
            self._add_validation(record)

    def _add_optimiser(self, record: MetricRecord) -> None:
        if (record.token, record.step) != (self.token, self.step) or self.stepped_at is None:
            self.stepped_at = record.time
        self.token, self.step = record.token, record.step
        self.progress = record.values.get(names.PROGRESS, self.progress)
        n_quarantined = record.values.get(names.AUDIT_QUARANTINED, self.n_quarantined)
        if n_quarantined > self.n_quarantined:
            self.quarantined_at = record.time
        self.n_quarantined = n_quarantined
        if names.REWARD_MEAN in record.values:
            _append(self.rewards, TrainingReward(record.token, record.step, record.values[names.REWARD_MEAN]))

    def _add_validation(self, record: MetricRecord) -> None:
        policy = ScoredPolicy(
            step=record.step,
            minutes=self.seconds / 60,
            values=_metrics(record, ""),
            errors=_metrics(record, "/error"),
            token=record.token,
            version=int(record.values[names.VAL_VERSION]),
            reward=record.values[names.VAL_REWARD],
        )
        _append(self.validations, policy)
        if record.values[names.VAL_IS_BEST]:
            self.best = policy


class RunFollower:
    """Keeps a history up to date with the file that it is read from; a line that is not complete has to wait."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / METRICS_FILE
        self._start_again()

    def _start_again(self) -> None:
        self._history = RunHistory()
        self._offset = 0
        self._n_lines = 0

    def refresh(self) -> RunHistory:
        """Return the history with what was written since the last call; without a file it is empty.

        Raises:
            InputError: a complete line is not a record; names the file and the line.
        """
        if not self._path.exists():
            return self._history
        if self._path.stat().st_size < self._offset:  # a resumed run cuts off what it does again
            self._start_again()
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if line.endswith(b"\n"):
                    self._offset += len(line)
                    self._history.add(self._parse(line))
        return self._history

    def _parse(self, line: bytes) -> MetricRecord:
        self._n_lines += 1
        try:
            return parse_record(line)
        except MessageError as error:
            raise InputError(
                f"{self._path}, line {self._n_lines} is not a metrics record ({error}); "
                "remove that line to read the others"
            ) from None


def last_heard(run_dir: Path) -> float:
    """Return the time of the last whole record in a run folder, by the clock of records; 0 if there is none."""
    try:
        with (run_dir / METRICS_FILE).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST_LINE))
            *lines, _ = stream.read().split(b"\n")
        return parse_record(lines[-1]).time
    except (OSError, IndexError, MessageError):  # a training's log has other lines
        return 0.0


T = TypeVar("T", ScoredPolicy, TrainingReward)


def _append(series: list[T], new: T) -> None:
    """Add a point in the place of those at its step or later, which were lost or are measured again."""
    if series and new.token < series[-1].token:
        return
    while series and series[-1].step >= new.step:
        series.pop()
    series.append(new)


def _metrics(record: MetricRecord, ending: str) -> dict[str, float]:
    """Return the validator's metrics by the names that tables use; `ending` is "" or "/error"."""
    found = {}
    for name, value in record.values.items():
        metric, _, k = name.removeprefix("val/").removesuffix(ending).partition("@")
        if name.endswith(ending) and metric in _NAMES and k.isdigit():
            found[f"{_NAMES[metric]}@{k}"] = value
    return found
