"""How a signal ends a command: by an exception that unwinds it, as Ctrl-C does, with 128 and its number as the code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal ended what was going on.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def exit_code_of(error: KeyboardInterrupt) -> int:
    """Return 128 and the signal's number."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


class Stop:
    """A wish to stop that came by a signal, for work that stops where it is whole; a second one stops it at once."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Note a signal.

        Raises:
            Stopped: it is the second one.
        """
        if self._number is not None:
            raise Stopped(number)
        self._number = number
        with suppress(OSError, ValueError):  # there is no such stream; a `print` could interrupt another one
            os.write(sys.stderr.fileno(), b"Stopping when what is being done is whole; once more stops at once.\n")

    @property
    def is_wanted(self) -> bool:
        """Whether a signal came."""
        return self._number is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number; 0 if none came."""
        return 0 if self._number is None else 128 + self._number

    def obey(self) -> NoReturn:
        """Stop, at a place that is whole.

        Raises:
            Stopped: always.
        """
        raise Stopped(self._number or signal.SIGINT)


def _raise(number: int, _: FrameType | None) -> NoReturn:
    raise Stopped(number)


@contextmanager
def signals_raise() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise `Stopped` in the main thread within the context."""
    with handled_by(_raise):
        yield


@contextmanager
def stop_wanted() -> Iterator[Stop]:
    """Have SIGINT, SIGTERM and SIGHUP be noted rather than interrupt what is being done within the context."""
    stop = Stop()
    with handled_by(stop):
        yield stop


@contextmanager
def handled_by(handler: signal._HANDLER) -> Iterator[None]:
    """Hand the signals that stop to a function within the context, unless they are ignored (`nohup`)."""
    if threading.current_thread() is not threading.main_thread():  # whose business signals aren't
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    taken = {number: earlier for number, earlier in before.items() if earlier != signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in taken.items():
            signal.signal(number, earlier)
