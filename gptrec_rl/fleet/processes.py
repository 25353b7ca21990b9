"""The processes of a fleet on one machine: starting, restarting after a crash, stopping.

Used by the Supervisor; `stop_event` is the other end, for the services that it starts. Linux only (`tether.py`).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gptrec_rl.errors import InputError, LeaseError, StorageError
from gptrec_rl.fleet.launcher import LOCALLY, Child, Launcher, Process

TERMINATED = 128 + signal.SIGTERM  # how a service ends that SIGTERM stopped: done if it was asked to finish
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_AFTER_S = 60.0
MAX_FAILURES = 8
STOP_GRACE_S = 120.0  # who saves on a busy machine isn't killed at it; a second signal doesn't wait
SAY_EVERY_S = 10.0
SHOWN_LOG_LINES = 20
_LOG_TAIL_BYTES = 16_384

_log = logging.getLogger(__name__)


class ChildFailedError(InputError):
    """A child can't go on: its message names the child and shows its last log lines, which say why."""


class RunTakenOverError(LeaseError):
    """Another Optimiser has the run, on another machine perhaps; what this one did until then is kept."""


@dataclass(frozen=True)
class Running:
    """A child that runs now, its process id and when it (last) started, by the group's clock."""

    child: Child
    pid: int
    started_at: float


@dataclass
class _Runner:
    """One child through all its attempts."""

    child: Child
    log_file: Path
    launcher: Launcher
    healthy_after_s: float
    process: Process | None = None
    attempts: int = 0
    failures: int = 0
    started_at: float = 0.0
    start_at: float | None = None
    is_done: bool = False
    is_finishing: bool = False
    leaves_by: float | None = None

    def start(self, now: float) -> None:
        """Start the child, or try again later where that isn't possible now: no room, or too many processes."""
        self.attempts += 1
        self.started_at, self.start_at = now, None
        try:
            with self.log_file.open("ab", buffering=0) as log:
                with suppress(OSError):  # a full disk
                    header = f"--- {self.child.name}, attempt {self.attempts}, {datetime.now():%Y-%m-%d %H:%M:%S}\n"
                    log.write(header.encode())
                self.process = self.launcher.start(self.child, log)
        except OSError as error:
            self._pause(now, f"can't be started: {error}")
            return
        if self.is_finishing:
            self.process.terminate()

    def poll(self, now: float) -> None:
        """Notice an end, start again when the pause is over.

        Raises:
            ChildFailedError: it refuses its input, or failed too often in a row.
        """
        if self.leaves_by is not None:
            self._end_the_leaving(now, self.leaves_by)
            return
        if self.process is None:
            if self.start_at is not None and now >= self.start_at:
                self.start(now)
            return
        if now - self.started_at >= self.healthy_after_s:
            self.failures = 0
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        if code == 0 or (self.is_finishing and code == TERMINATED):
            self.is_done = True
            return
        if code == InputError.exit_code:
            raise ChildFailedError(f"{self.child.name} can't work with what it was given:\n{self._last_lines()}")
        if code == LeaseError.exit_code:
            raise RunTakenOverError(f"{self.child.name} has to end, so this fleet does:\n{self._last_lines()}")
        self.failures = min(self.failures, MAX_FAILURES - 1) if code == StorageError.exit_code else self.failures
        self.failures += 1
        if self.failures > MAX_FAILURES:
            raise ChildFailedError(
                f"{self.child.name} {_in_words(code)}, for the {self.failures}th time in a row; "
                f"the end of {self.log_file}:\n{self._last_lines()}"
            )
        self._pause(now, _in_words(code))

    def _pause(self, now: float, why: str) -> None:
        pause_s = min(FIRST_PAUSE_S * 2 ** max(0, self.failures - 1), LONGEST_PAUSE_S)
        self.start_at = now + pause_s
        _log.warning("%s %s; it starts again in %.0f s", self.child.name, why, pause_s)

    def leave(self, now: float) -> None:
        """Ask for an end after which it isn't started again, and don't wait for it."""
        self.start_at, self.leaves_by = None, now + STOP_GRACE_S
        if self.process:
            self.process.terminate()

    @property
    def has_left(self) -> bool:
        """Whether it was asked to leave, and has ended."""
        return self.leaves_by is not None and self.process is None

    def _end_the_leaving(self, now: float, deadline: float) -> None:
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.process = None
        elif now > deadline:
            self.process.kill()

    def end(self, deadline: float) -> None:
        """Wait for an end asked for before; past the deadline (`time.monotonic`) make it."""
        self.start_at = None
        if self.process is None:
            return
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                self.process.wait(min(left_s, SAY_EVERY_S))
                break
            except subprocess.TimeoutExpired:
                _log.warning("waiting for %s, which has %.0f s to save and end", self.child.name, left_s)
        if self.process.poll() is None:
            _log.warning("%s doesn't stop and is killed", self.child.name)
            self.process.kill()
            self.process.wait()
        self.process = None

    def _last_lines(self) -> str:
        if not self.log_file.exists():
            return f"({self.log_file} is not there)"
        with self.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-SHOWN_LOG_LINES:])


class ProcessGroup:
    """Children that live and die with this process.

    A child that ends with code 0 is done. One that ends with the code of bad input or of a lost lease ends the group
    (`gptrec_rl.errors`); after any other end it is started again, after pauses that double from 1 s to 60 s and are
    forgotten after 60 s of health; while storage fails, without end. Their output goes to
    `<log_dir>/<role>-<index>.log`.

    Leaving the `with` block stops what still runs.
    """

    def __init__(
        self,
        children: Sequence[Child],
        log_dir: Path,
        clock: Callable[[], float] = time.monotonic,
        healthy_after_s: float = HEALTHY_AFTER_S,
        launcher: Launcher = LOCALLY,
    ) -> None:
        """Start nothing yet.

        Args:
            children: what to start.
            log_dir: made when missing; logs are appended to.
            clock: seconds, for the pauses.
            healthy_after_s: how long a child has to live for its failures to be forgotten.
            launcher: starts them.
        """
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._launcher = launcher
        self._clock = clock
        self._healthy_after_s = healthy_after_s
        self._runners = [self._hired(child) for child in children]
        self.n_restarts = 0
        """How often a child was started again."""

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(STOP_GRACE_S)

    def start(self) -> None:
        """Start all children."""
        for runner in self._runners:
            runner.start(self._clock())

    def poll(self) -> None:
        """Notice what ended and start again what is due; call it a few times a second.

        Raises:
            ChildFailedError: a child can't go on.
        """
        for runner in self._runners:
            n_attempts = runner.attempts
            runner.poll(self._clock())
            self.n_restarts += runner.attempts - n_attempts
        self._runners = [runner for runner in self._runners if not runner.has_left]

    def keep_running(self, role: str, children: Sequence[Child]) -> None:
        """Have these children of a role from now on: others are asked to end, new ones start; nobody is waited for.

        A new one whose namesake hasn't ended yet is left out: call this again.
        """
        names = {child.name for child in children}
        there = {runner.child.name: runner for runner in self._of(role)}
        for name, runner in there.items():
            if name not in names and runner.leaves_by is None:
                runner.leave(self._clock())
        for child in children:
            if child.name not in there:
                self._runners.append(self._hired(child))
                self._runners[-1].start(self._clock())

    def running(self) -> list[Running]:
        """Return the children that run now."""
        return [Running(r.child, r.process.pid, r.started_at) for r in self._runners if r.process]

    def is_done(self, role: str) -> bool:
        """Say whether all children of a role ended with code 0."""
        return all(runner.is_done for runner in self._of(role))

    def kill(self, child: Child) -> None:
        """Kill a child that hangs; it is started again like one that crashed."""
        process = self._runner(child).process
        if process:
            process.kill()

    def finish(self, role: str) -> None:
        """Ask a role by SIGTERM to do its last work and end; one that fails at it is started and asked again."""
        for runner in self._of(role):
            runner.is_finishing = True
            if runner.process:
                runner.process.terminate()

    def stop(self, grace_s: float, role: str | None = None) -> None:
        """End a role, or all: SIGTERM, then SIGKILL for those that still run after the grace; nothing starts again."""
        runners = self._of(role) if role else self._runners
        for runner in runners:
            if runner.process:
                runner.process.terminate()
        deadline = time.monotonic() + grace_s
        for runner in runners:
            runner.end(deadline)

    def _hired(self, child: Child) -> _Runner:
        return _Runner(child, self._log_dir / f"{child.name}.log", self._launcher, self._healthy_after_s)

    def _of(self, role: str) -> list[_Runner]:
        return [runner for runner in self._runners if runner.child.role == role]

    def _runner(self, child: Child) -> _Runner:
        return next(runner for runner in self._runners if runner.child == child)


class StopEvent:
    """A `threading.Event` that a signal handler may set: a counter of the kernel's, which nobody takes back to zero.

    Python runs handlers in the main thread, between two of its operations. One that sets a `threading.Event` for which
    that thread just begins or ceases to wait waits for the event's lock, held by the thread that it interrupts: for
    ever.
    """

    def __init__(self) -> None:
        self._counter = os.eventfd(0)

    def __del__(self) -> None:
        os.close(self._counter)

    def set(self) -> None:
        """Let all waiting end, now and later."""
        os.eventfd_write(self._counter, 1)

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self.wait(0.0)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, for so long at most (None: no limit); say whether it is."""
        return bool(select.select([self._counter], [], [], seconds)[0])


def stop_event() -> StopEvent:
    """Return an event that SIGTERM or SIGINT sets; the first thing in a service's `main`, in the main thread.

    A child is started with SIGTERM held back, so that one which comes while it still imports isn't lost but sets
    the event as soon as this is called.
    """
    stop = StopEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return stop


def _in_words(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
