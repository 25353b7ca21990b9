"""How errors end a command: in words, with the code of their cause."""

from __future__ import annotations

import pytest
import redis

from gptrec_rl.cli import BadInput, plain_errors
from gptrec_rl.errors import InputError, LeaseError, StorageError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("goal"), 2, "goal, please"),
        (StorageError("disk"), 74, "disk, please"),
        (LeaseError("lease"), 75, "lease, please"),
        (redis.ConnectionError("NOREPLICAS"), 74, "Redis can't be used now: NOREPLICAS; try again when it works"),
    ],
)
def test_an_error_is_shown_in_words_with_its_code(error: Exception, code: int, message: str) -> None:
    with pytest.raises(BadInput) as shown, plain_errors(", please"):
        raise error
    assert (shown.value.exit_code, shown.value.message) == (code, message)


def test_a_bug_stays_one() -> None:
    with pytest.raises(ZeroDivisionError), plain_errors():
        raise ZeroDivisionError
