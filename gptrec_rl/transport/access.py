"""What a fleet may do in Redis: the ACL user whose password can't touch anything but the keys of one run.

`gptrec-rl fleet acl RUN_ID --password-file FILE` prints the user's line for an ACL file;
`services/prepare.py` writes the file of a fleet of containers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptrec_rl.errors import InputError

USER = "fleet"
RIGHTS = (
    "resetchannels",
    "-@all",
    "+@connection",
    "+@hash",
    "+@set",
    "+@stream",
    "+@string",
    "+@transaction",
    "+del",
    "+evalsha",
    "+persist",
    "+pexpire",
    "+pttl",
    "+script|load",
    "+time",
    "-@dangerous",
    "+info",
)
"""Hashes, sets, streams and strings, the transport's own scripts, what Redis is and its clock; no look at other keys or
clients."""


def read_password(file: Path) -> str:
    """Return the password that a file holds, without white space around it.

    Raises:
        InputError: it holds none.
    """
    password = file.read_text(encoding="utf-8").strip()
    if not password:
        raise InputError(f"{file} is empty; write the password of Redis into it")
    return password


def user_line(run_id: str, password: str) -> str:
    """Return the ACL line of the user `fleet`, with a hash in the place of the password.

    Args:
        run_id: the run's id, in the `config.toml` of its folder.
        password: of the user.
    """
    secret = hashlib.sha256(password.encode()).hexdigest()
    return f"user {USER} on #{secret} ~gptrec:{{{run_id}}}:* {' '.join(RIGHTS)}"


def acl_file(run_id: str, password: str) -> str:
    """Return the ACL file of a Redis that serves one run and nobody else.

    Nobody can be the user `default`, which is off, but Redis 7.0 itself: as that user it reads its append-only file
    again, and what it had no right to would be lost.
    """
    return f"user default off ~* &* +@all\n{user_line(run_id, password)}\n"
