"""What a process of a fleet is told: to stop, and to pause; and that it waits for storage that fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from gptrec_rl.errors import StorageError
from gptrec_rl.fleet.processes import TERMINATED, StopEvent
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.transport.control import Control

STORAGE_S = 2.0
"""Pause of a process whose storage is full or fails, in seconds."""
IDLE_S = 0.05
"""Pause of a process that has nothing to do, in seconds."""
PAUSED_S = 0.25
"""How often a process of a paused run looks whether it may go on, in seconds."""

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """What obeys orders: a generator, the optimiser or the validator."""

    reporter: Reporter

    def report(self) -> None:
        """Append a record to the metrics stream."""


class Orders:
    """What a service process is told: to stop, by a signal or by `gptrec-rl fleet stop`, and to pause.

    Args:
        stop: set by a signal.
        control: of the run; what it said before this process started is over.
    """

    def __init__(self, stop: StopEvent, control: Control) -> None:
        self._stop = stop
        self._control = control
        self._n_stops = control.wishes().n_stops
        self._trouble: StorageError | None = None
        self.exit_code = TERMINATED
        """What the process ends with before its work is done: 0, after which nobody starts it again, if it was
        `gptrec-rl fleet stop`."""

    def go_on(self, worker: Worker) -> bool:
        """Return whether to go on; while the run is paused, wait and report."""
        is_paused = False
        while not self._stop.is_set():
            wishes = self._control.wishes()
            if wishes.n_stops > self._n_stops:
                self.exit_code = 0
                return False
            if not wishes.is_paused:
                return True
            if not is_paused:
                logger.info("paused until `gptrec-rl fleet resume`")
                is_paused = True
            self._wait(PAUSED_S, names.WAIT_RESUME, worker)
        return False

    @contextmanager
    def storage_waited_for(self, worker: Worker) -> Iterator[None]:
        """Suppress the error of storage that is full or fails, and wait a moment; the caller tries again.

        What is waited for is said once, and so is its end.

        Raises:
            StorageError: storage is full or fails, and the process is to stop.
        """
        try:
            yield
        except StorageError as error:
            if self._stop.is_set():
                raise
            if self._trouble is None:
                logger.warning("waiting for storage: %s", error)
            self._trouble = error
            self._wait(STORAGE_S, names.WAIT_DISK, worker)
            return
        if self._trouble is not None:
            logger.warning("storage works again")
        self._trouble = None

    def _wait(self, seconds: float, what: str, worker: Worker) -> None:
        self._stop.wait(seconds)
        worker.reporter.waited(seconds, what)
        if worker.reporter.is_due:
            worker.report()
