"""What a recorder wrote down, read back: the draws of a run in the order in which the learner came to its policy.

Steps that a later optimiser did again count once, as that one did them. The last frame of a killed optimiser may be
torn; anything else that is not as it was written is refused before the replay begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import changed_settings
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.recorder import DRAWN, FOLDER, LENGTH, PUBLISHED, length_checksum
from gptrec_rl.settings import Settings
from gptrec_rl.transport.messages import MAX_MESSAGE_BYTES, MessageError, RolloutBatch, decode, unpack

LEARNED_WITH = ("goal", "ppo", "precision", "seed", "split")
"""The settings that decide what a learner makes of its draws."""

logger = logging.getLogger(__name__)


class Header(Settings):
    """What an attempt at the run (one optimiser) says of itself."""

    kind: Literal["header"]
    token: NonNegativeInt
    step: NonNegativeInt
    """Which it went on from."""
    config: TuneConfig
    catalogue_hash: str
    split_hash: str
    student: str
    """SHA-256 of the weights that the run started from."""
    device: Literal["cpu", "cuda"]
    threads: PositiveInt
    """Numerical threads."""
    torch: str
    """Version."""


@dataclass(frozen=True)
class _Place:
    """Where a batch stands."""

    path: Path
    offset: int

    def read(self) -> RolloutBatch:
        """Read it.

        Raises:
            InputError: it is not there any more, or not as it was written.
        """
        try:
            _, body = next(_frames(self.path, self.offset))
            return decode(body["batch"])
        except (OSError, StopIteration, KeyError, MessageError) as error:
            raise _damaged(self.path, self.offset, repr(error)) from None


@dataclass(frozen=True)
class _Event:
    """A draw, or the publication of a policy with this checksum, at a step."""

    step: int
    place: _Place | None = None
    sha256: str = ""


@dataclass(frozen=True)
class _Attempt:
    """What one optimiser wrote."""

    header: Header
    events: list[_Event]


@dataclass(frozen=True)
class Recording:
    """A run's draws.

    Attributes:
        header: of the last attempt.
        steps: how many steps can be replayed, from the first on.
    """

    header: Header
    steps: int
    _events: tuple[_Event, ...]

    @classmethod
    def open(cls, run_dir: Path) -> Recording:
        """Read and check the recording of a run; its batches stay on disk.

        Raises:
            InputError: there is none, it is damaged, begins after the first step, or the run changed its settings.
        """
        paths = sorted((run_dir / FOLDER).glob("*.draws"))
        if not paths:
            raise InputError(f"{run_dir} has no recording; make one with 'gptrec-rl tune --record'")
        attempts = [attempt for path in paths if (attempt := _read_attempt(path)) is not None]
        if not attempts or attempts[0].header.step != 0:
            raise InputError(
                f"the recording of {run_dir} doesn't begin with the run's first step; give --record from the start"
            )
        for before, after in pairwise(attempt.header for attempt in attempts):
            _require_same(run_dir, before, after)
        events: list[_Event] = []
        for attempt in attempts:
            events = [event for event in events if event.step <= attempt.header.step] + attempt.events
        return cls(attempts[-1].header, *_without_gap(events))

    def draws(self) -> Iterator[tuple[int, RolloutBatch, str | None]]:
        """Yield each step, its batch, and the checksum of the policy if one was published then."""
        published = {event.step: event.sha256 for event in self._events if event.place is None}
        for event in self._events:
            if event.place is not None:
                yield event.step, event.place.read(), published.get(event.step)


def _read_attempt(path: Path) -> _Attempt | None:
    """Read a file; None for one that was torn within its header."""
    header: Header | None = None
    events: list[_Event] = []
    places: dict[tuple[int, int], _Place] = {}
    for offset, body in _frames(path):
        try:
            if header is None:
                header = Header.model_validate(body)
            elif body["kind"] == DRAWN:
                key = body["generator_id"], body["sequence_number"]
                if "batch" in body:
                    places[key] = _Place(path, offset)
                events.append(_Event(int(body["step"]), places[key]))
            elif body["kind"] == PUBLISHED:
                events.append(_Event(int(body["step"]), sha256=body["sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, offset, repr(error)) from None
    return _Attempt(header, events) if header else None


def _frames(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the places and contents of all whole frames."""
    with path.open("rb") as stream:
        stream.seek(start)
        while prefix := stream.read(LENGTH.size):
            offset = stream.tell() - len(prefix)
            length, checksum = LENGTH.unpack(prefix) if len(prefix) == LENGTH.size else (0, length_checksum(0))
            if length > MAX_MESSAGE_BYTES or checksum != length_checksum(length):
                raise _damaged(path, offset, "its length is wrong")
            message = stream.read(length)
            if not length or len(message) < length:
                logger.info("%s ends within a draw, as its optimiser was killed there", path)
                return
            try:
                yield offset, unpack(message)
            except MessageError as error:
                raise _damaged(path, offset, str(error)) from None


def _damaged(path: Path, offset: int, problem: str) -> InputError:
    return InputError(
        f"the recording {path} is damaged at byte {offset}: {problem}; fetch it again, or remove this file and all "
        "later ones to replay the steps before"
    )


def _require_same(run_dir: Path, before: Header, after: Header) -> None:
    """Refuse a run that a resume changed."""
    old, new = (
        {
            **header.model_dump(mode="json", exclude={"token", "step", "config"}),
            "config": header.config.model_dump(mode="json", include=set(LEARNED_WITH)),
        }
        for header in (before, after)
    )
    for name, was, now in changed_settings(old, new):
        raise InputError(
            f"the run {run_dir} was resumed at step {after.step} with another {name.removeprefix('config.')}, {now!r} "
            f"for {was!r}, and a replay has one; only a run that goes on with the same settings can be replayed"
        )


def _without_gap(events: Sequence[_Event]) -> tuple[int, tuple[_Event, ...]]:
    """Return how many steps there are until the first that is missing, and the events until then."""
    steps = 0
    for event in events:
        if event.place is not None and event.step == steps + 1:
            steps += 1
        elif event.place is not None:
            logger.warning("the recording lacks step %d, and is replayed up to there", steps + 1)
            break
    return steps, tuple(event for event in events if event.step <= steps)
