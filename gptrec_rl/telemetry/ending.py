"""How the last attempt at a run or a training ended: its folder says so, to `doctor` and `watch`."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from gptrec_rl.stops import exit_code_of
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.store.manifest import parse_json
from gptrec_rl.telemetry.folders import CONFIG
from gptrec_rl.telemetry.history import LONGEST_PAUSE_S, RunHistory, last_heard

END = "end.json"
MAX_BYTES = 2**16
MAX_MESSAGE = 2**13

How = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class End:
    """An end.

    Attributes:
        how: finished: all was done; stopped: somebody wanted it, and it can go on; failed: an error ended it.
        message: by what it was stopped, or the error; empty for a finished one.
        time: when, in seconds since the epoch.
        heard_at: time of the run's last record then, by the clock of records; 0 without one.
    """

    how: How
    message: str
    time: float
    heard_at: float = 0.0

    @property
    def cause(self) -> str:
        """The message in one line: an error that quotes a log has its own cause at the end."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return " ... ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))

    def __str__(self) -> str:
        """Say how it ended, in one line."""
        by = {"finished": "", "stopped": f" by {self.cause}", "failed": f": {self.cause}"}[self.how]
        return f"{self.how}{by}"


@contextmanager
def end_recorded(folder: Path) -> Iterator[None]:
    """Write down how what is done in this context ends; while it goes on, its folder has no end."""
    (folder / END).unlink(missing_ok=True)
    try:
        yield
    except BaseException as error:
        _write(folder, *_how(error))
        raise
    _write(folder, "finished", "")


def record_failure(folder: Path, message: str) -> None:
    """Write down the error that ended a process of a fleet, with which a run may have ended: see `end_of`."""
    if (folder / CONFIG).exists():  # nothing is written into what is no run folder
        _write(folder, "failed", message)


def end_of(folder: Path, history: RunHistory) -> End | None:
    """Return how the last attempt at a tuning run ended; None also when steps were done since."""
    end = read_end(folder)
    went_on = end is not None and history.stepped_at is not None and history.stepped_at > end.heard_at + LONGEST_PAUSE_S
    return None if went_on else end


def read_end(folder: Path) -> End | None:
    """Return how the last attempt ended; None while it goes on, if it was killed, or if nobody can tell."""
    try:
        fields = parse_json(LocalStorage(folder).read(END, MAX_BYTES))
        end = End(**fields)
    except (OSError, ValueError, TypeError):
        return None
    is_sound = end.how in get_args(How) and isinstance(end.message, str)
    are_times = all(type(time) is float and math.isfinite(time) for time in (end.time, end.heard_at))
    return end if is_sound and are_times else None


def _how(error: BaseException) -> tuple[How, str]:
    code: object = None
    if isinstance(error, SystemExit):
        code = error.code
    if isinstance(error, KeyboardInterrupt):
        code = exit_code_of(error)
    if isinstance(code, int) and code in {128 + number for number in signal.Signals}:
        return "stopped", signal.Signals(code - 128).name
    return ("finished", "") if code == 0 else ("failed", str(error) or type(error).__name__)


def _write(folder: Path, how: How, message: str) -> None:
    with suppress(OSError):  # a full disk: that it ended is known without
        content = json.dumps(asdict(End(how, message[-MAX_MESSAGE:], time.time(), last_heard(folder)))) + "\n"
        LocalStorage(folder).replace(END, content.encode())
