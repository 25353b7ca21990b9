"""What a fleet may do in Redis: the ACL user whose password can't touch anything but the keys of one run.

`python -m gptrec_rl.transport.access RUN_ID` prints the user's line for an ACL file or, with ACL SETUSER in front, for
`redis-cli`; `services/prepare.py` writes the file of a fleet of containers.
"""

from __future__ import annotations

import hashlib

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
    "+pexpire",
    "+script|load",
    "-@dangerous",
)
"""Hashes, sets, streams and strings, and the transport's own scripts; no look at other keys or clients."""


def user_line(run_id: str, password: str | None = None) -> str:
    """Return the ACL line of the user `fleet`.

    Args:
        run_id: the run's id, in the `config.toml` of its folder.
        password: of the user, kept as a hash; None leaves a place for one.
    """
    secret = ">YOUR-PASSWORD" if password is None else f"#{hashlib.sha256(password.encode()).hexdigest()}"
    return f"user {USER} on {secret} ~gptrec:{{{run_id}}}:* {' '.join(RIGHTS)}"


def acl_file(run_id: str, password: str) -> str:
    """Return the ACL file of a Redis that serves one run and nobody else.

    Nobody can be the user `default`, which is off, but Redis 7.0 itself: as that user it reads its append-only file
    again, and what it had no right to would be lost.
    """
    return f"user default off ~* &* +@all\n{user_line(run_id, password)}\n"


if __name__ == "__main__":
    import sys

    print(user_line(sys.argv[1]))
