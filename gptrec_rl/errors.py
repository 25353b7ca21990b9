"""The exceptions that are shown to people as a plain message, without a traceback, each with its exit code.

A command or service ends with 0 when it is done, with 128 and its number after a signal, and with 1 after a bug.
"""

from __future__ import annotations

from typing import ClassVar


class InputError(ValueError):
    """Bad input from outside: the message names the thing, its value and the remedy.

    Attributes:
        exit_code: of a process that this ends; 2 means that a restart wouldn't help.
    """

    exit_code: ClassVar[int] = 2


class StorageError(InputError):
    """Storage fails, which says nothing of what it holds; a process of a fleet waits until it works again."""

    exit_code = 74  # EX_IOERR of sysexits.h: the Supervisor starts it again, as often as it takes


class LeaseError(InputError):
    """Another Optimiser works on the run, so this one has to end; it must not be started again beside it."""

    exit_code = 75  # EX_TEMPFAIL: the run is in somebody else's hands


class DivergedError(InputError):
    """Losses are not finite any more: the last saved state is good, and other settings are needed from there."""
