"""Where checkpoints lie: folders of a few small files, written whole or not at all.

On a file system an entry is written beside its place, synced and renamed. An object store can't rename, so there the
manifest, which readers ask for first, is written last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

Check = Callable[[], None]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
_BESIDE = re.compile(r"\.unfinished-(.+)-[0-9a-f]{8}")


def _nothing_to_check() -> None:
    """Let every write go on."""


class Storage(ABC):
    """Folders of files below a root. Paths are relative, with ``/``."""

    @abstractmethod
    def read(self, path: str, at_most: int) -> bytes:
        """Return a file's content.

        Raises:
            OSError: it can't be read, or has more than so many bytes.
        """

    @abstractmethod
    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, with those of unfinished entries (``.``...); none when it is not there."""

    @abstractmethod
    def write_folder(self, folder: str, files: Mapping[str, bytes], check: Check = _nothing_to_check) -> None:
        """Write a folder; who reads its last file finds all others complete. An older one of its name is replaced.

        Args:
            folder: where.
            files: what is in it, by name.
            check: called when there is something that `list` shows as unfinished, and before it counts; raises if it
                shall not. Whoever removes what is unfinished keeps a writer that has checked from going on.

        Raises:
            OSError: it could not be written (a full disk); nothing of it is left, and on a file system the older one
                is as it was.
        """

    @abstractmethod
    def replace(self, path: str, content: bytes, check: Check = _nothing_to_check) -> None:
        """Write one file; readers see the old content or the new, never a part. `check` is as in `write_folder`."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file or a folder if it is there."""


def open_storage(root: str) -> Storage:
    """Return the storage at a root: a path, or the URL of anything that fsspec knows (``s3://``, ``memory://``)."""
    scheme, _, path = root.rpartition("://")
    if scheme in ("", "file"):
        return LocalStorage(Path(path))
    return ObjectStorage(root)


class LocalStorage(Storage):
    """A folder of the file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, at_most: int) -> bytes:
        """Return a file's content; what a link points to is not read, nor a pipe or a device."""
        with open(self._root / path, "rb", opener=_open_itself) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_size > at_most:
                raise _too_long(path, at_most)
            return stream.read(status.st_size)

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        try:
            return sorted(os.listdir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write_folder(self, folder: str, files: Mapping[str, bytes], check: Check = _nothing_to_check) -> None:
        """Write a folder beside its place, sync it, and rename it; an older one goes when the new one is there."""
        target = self._root / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _beside(target)
        try:
            unfinished.mkdir()
            for name, content in files.items():
                _write_synced(unfinished / name, content)
            _sync_folder(unfinished)
            check()
            _take_place(unfinished, target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        _sync_folder(target.parent)
        _clear_beside(target)

    def replace(self, path: str, content: bytes, check: Check = _nothing_to_check) -> None:
        """Write a file beside its place, sync it, and rename it."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _beside(target)
        try:
            _write_synced(unfinished, content)
            check()
            os.replace(unfinished, target)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
        _clear_beside(target)

    def remove(self, path: str) -> None:
        """Remove a file or folder; a folder loses its name first, so that no reader sees half of it."""
        target = self._root / path
        if target.is_dir():
            removed = _beside(target)
            with suppress(FileNotFoundError):  # a writer was quicker to give it its name
                target.rename(removed)
                shutil.rmtree(removed)
        else:
            target.unlink(missing_ok=True)


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    """Tell of what an object store's client raises as an `OSError`, as of a file system's failure."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has its own: of HTTP, of signatures, of time that ran out
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


class ObjectStorage(Storage):
    """Anything that fsspec knows: an object store, or ``memory://`` for a fleet in one process."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def read(self, path: str, at_most: int) -> bytes:
        """Return a file's content."""
        with _as_os_error(path):
            content: bytes = self._fs.cat_file(self._at(path), start=0, end=at_most + 1)
        if len(content) > at_most:
            raise _too_long(path, at_most)
        return content

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        self._fs.invalidate_cache()
        try:
            with _as_os_error(folder):
                paths = self._fs.ls(self._at(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def write_folder(self, folder: str, files: Mapping[str, bytes], check: Check = _nothing_to_check) -> None:
        """Write the files in their order; the last one commits them, and never takes the place of another's."""
        check()
        self.remove(folder)
        *others, last = files
        for name in others:
            self.replace(f"{folder}/{name}", files[name])
        with _as_os_error(folder):
            self._fs.pipe_file(self._at(f"{folder}/{last}"), files[last], mode="create")

    def replace(self, path: str, content: bytes, check: Check = _nothing_to_check) -> None:
        """Write one object."""
        check()
        with _as_os_error(path):
            self._fs.pipe_file(self._at(path), content)

    def remove(self, path: str) -> None:
        """Remove an object or all below a prefix."""
        with suppress(FileNotFoundError), _as_os_error(path):  # not `exists`, which takes any failure for absence
            self._fs.rm(self._at(path), recursive=True)

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _too_long(path: str, at_most: int) -> OSError:
    return OSError(errno.EFBIG, f"more than {at_most} bytes", path)


def _beside(target: Path) -> Path:
    """Return a new name beside a place; of what lies beside its place already, beside that same place."""
    beside = _BESIDE.fullmatch(target.name)
    return target.with_name(f".unfinished-{beside[1] if beside else target.name}-{secrets.token_hex(4)}")


def _take_place(new: Path, target: Path) -> None:
    """Give a folder the name of another, if that is there, in one step: nobody finds neither, whoever is killed when.

    Where the file system can't exchange two names (NFS), there is a moment between two renames.
    """
    if not target.exists():
        new.rename(target)
        return
    places = os.fsencode(new), os.fsencode(target)
    if _renameat2 is not None and _renameat2(_AT_FDCWD, places[0], _AT_FDCWD, places[1], _RENAME_EXCHANGE) == 0:
        return
    replaced = _beside(target)
    target.rename(replaced)
    try:
        new.rename(target)
    except BaseException:
        if not target.exists():
            replaced.rename(target)
        raise


def recover(folder: Path) -> None:
    """Give a folder its name again that a writer, killed between two renames, has left without; the newest of several.

    To be called where its absence means that there is nothing, and by nobody while somebody may write it.
    """
    if folder.exists() or not folder.parent.is_dir():
        return
    left = [
        path for path in folder.parent.iterdir() if (named := _BESIDE.fullmatch(path.name)) and named[1] == folder.name
    ]
    if left:
        max(left, key=lambda path: path.stat().st_mtime).rename(folder)


def _clear_beside(target: Path) -> None:
    """Remove the replaced one, and those of writers that were killed; it may fail, as what is new is there."""
    with suppress(OSError):
        for path in target.parent.iterdir():
            beside = _BESIDE.fullmatch(path.name)
            if beside and beside[1] == target.name:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
