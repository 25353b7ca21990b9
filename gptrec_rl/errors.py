"""The exceptions that the command line shows to people as a plain message, without a traceback."""

from __future__ import annotations

STORAGE_FAILS = 74
"""Exit code of a service whose storage fails (EX_IOERR of sysexits.h): a restart may help."""


class InputError(ValueError):
    """Bad input from outside: the message names the thing, its value and the remedy."""


class StorageError(InputError):
    """Storage fails, which says nothing of what it holds; a process of a fleet waits until it works again."""


class DivergedError(InputError):
    """Losses are not finite any more: the last saved state is good, and other settings are needed from there."""
