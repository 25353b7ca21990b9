"""A disk that can be full: a small file system in memory, which only root may mount."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_MB = 512
FILLER = "filler"


def can_mount() -> bool:
    """Say whether this process may have disks of its own."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Have a disk of its own at a folder within the context."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "chaos", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no room on a folder's disk within the context."""
    filler = folder / FILLER
    try:
        with filler.open("wb", buffering=0) as out:
            _fill(out.fileno())
        yield
    finally:
        filler.unlink()


def _fill(descriptor: int) -> None:
    size, step = 0, 1 << 24
    while step >= 1:
        try:
            os.posix_fallocate(descriptor, size, step)
            size += step
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 4
