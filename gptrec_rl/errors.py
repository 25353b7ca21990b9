"""The exceptions that are shown to people as a plain message, without a traceback, each with its exit code.

A command or service ends with 0 when it is done, with 128 and its number after a signal, and with 1 after a bug.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
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


_ABSENCES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.ENAMETOOLONG)


def may_pass(error: OSError) -> bool:
    """Tell whether what can't be read may be read later: storage fails, which says nothing of what it holds.

    Otherwise what is asked for isn't there, is something else, or this user may not read it.
    """
    is_absence = error.errno in _ABSENCES or isinstance(error, FileNotFoundError)  # an object store's has no number
    return not is_absence and not isinstance(error, PermissionError)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like one, whatever the capitals of both; there is at least one.

    Example:
        >>> nearest("ILD", ("pcount", "ild"))
        'ild'
    """
    by_small_letters = {each.lower(): each for each in known}
    return by_small_letters[difflib.get_close_matches(word.lower(), by_small_letters, n=1, cutoff=0.0)[0]]
