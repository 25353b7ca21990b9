"""Files that are replaced whole: nobody ever reads a part of one, whoever fails or is killed when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place to write at, which takes a file's place when the context ends well, and else is removed.

    The file's folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text in UTF-8, all or nothing."""
    with replacing(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)
