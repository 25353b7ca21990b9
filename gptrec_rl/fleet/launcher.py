"""How the processes of a fleet are started: on this machine, or wherever another launcher puts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Protocol

from gptrec_rl.fleet import tether
from gptrec_rl.fleet.cores import Share


@dataclass(frozen=True)
class Child:
    """What to start and how.

    Attributes:
        role: "generator", "optimiser" or "validator".
        index: tells children of one role apart.
        argv: the command.
        share: cores, threads and priority.
        environment: added to the launcher's (the place for a password; a command line can be read by everybody).
    """

    role: str
    index: int
    argv: tuple[str, ...]
    share: Share
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in logs and messages."""
        return f"{self.role}-{self.index}"


class Process(Protocol):
    """A child that was started, as `subprocess.Popen` shows it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            TimeoutExpired: of `subprocess`; it still runs.
        """
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class Launcher(Protocol):
    """Starts children."""

    def start(self, child: Child, log: IO[bytes]) -> Process:
        """Start a child that ends when this process does; its output goes to the log.

        Raises:
            OSError: it can't be started now.
        """
        ...


class LocalLauncher:
    """Starts children on this machine, each on its share of the cores; Linux only (`tether.py`).

    When this process dies, even by SIGKILL, the kernel kills them; as that follows the thread that starts them, start
    in the main thread.
    """

    def start(self, child: Child, log: IO[bytes]) -> Process:
        """Start a child; see `Launcher.start`. SIGTERM is held back in it until it can take it (`stop_event`)."""
        share = child.share
        tie = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid())]
        tie += [",".join(map(str, share.cores)), str(share.niceness)]
        threads = {"OMP_NUM_THREADS": str(share.n_threads), "MKL_NUM_THREADS": str(share.n_threads)}
        with _term_deferred():
            return subprocess.Popen(
                [*tie, *child.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is the Supervisor's alone.
                env={**os.environ, **threads, **child.environment},
            )


LOCALLY = LocalLauncher()


@contextmanager
def _term_deferred() -> Iterator[None]:
    """Hold back SIGTERM in this thread and, through inheritance, in what it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
