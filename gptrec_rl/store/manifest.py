"""The format of a checkpoint: a folder of files with a manifest of their sizes and SHA-256, step and origin.

The store's policies and learner states have it, and so has a model's folder that stands alone (the student).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptrec_rl.errors import InputError, LeaseError, StorageError, may_pass
from gptrec_rl.store.files import LocalStorage

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
MAX_INT = 2**53
"""Of tokens, versions and steps: what a double counts exactly, Redis' too."""
MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 2**36

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CheckpointError(InputError):
    """A checkpoint that is damaged, incomplete or out of place; the message names the file and what is wrong."""


class FencedError(LeaseError, CheckpointError):
    """A newer Optimiser has published or saved: this one has lost its lease."""


class DiskFullError(StorageError):
    """A checkpoint has no room; what was there before is as it was, and a process of a fleet waits."""


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says of one file.

    Attributes:
        size: in bytes.
        sha256: in hexadecimal.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from.

    Attributes:
        token: fencing token of the optimiser that wrote it.
        version: version of the policy in it, or the newest one published when a learner state was saved.
        step: learner step.
        catalogue_hash: hash of the catalogue that it was trained on.
        split_hash: hash of the split that it was trained on.
        config: what its writer wanted kept, in JSON types.
    """

    token: int
    version: int
    step: int
    catalogue_hash: str
    split_hash: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Entry(Origin):
    """A checkpoint, without the content of its files.

    Attributes:
        folder: its path within the store.
        files: by name.
    """

    folder: str
    files: Mapping[str, FileRecord]

    def manifest(self) -> bytes:
        """Return the content of the manifest."""
        fields = asdict(self)
        del fields["folder"]
        return json.dumps({"format_version": FORMAT_VERSION, **fields}, indent=2).encode()


def seal(folder: str, files: Mapping[str, bytes], origin: Origin) -> Entry:
    """Return the entry that these files make.

    Raises:
        CheckpointError: a file's name is not plain.
    """
    records = {
        _plain(name, folder): FileRecord(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    return Entry(**vars(origin), folder=folder, files=records)


def parse_manifest(folder: str, content: bytes) -> Entry:
    """Return the entry that a manifest describes.

    Raises:
        CheckpointError: it is not a manifest of this format.
    """
    try:
        fields = parse_json(content)
        format_version = fields.pop("format_version")
        if format_version != FORMAT_VERSION:
            raise CheckpointError(f"{folder}/{MANIFEST} has format {format_version}, not {FORMAT_VERSION}")
        records = {_plain(name, folder): _file_record(**record) for name, record in fields.pop("files").items()}
        entry = Entry(folder=folder, files=records, **fields)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder}/{MANIFEST} is damaged: {error!r}") from None
    numbers = (entry.token, entry.version, entry.step)
    hashes = (entry.catalogue_hash, entry.split_hash)
    are_numbers = all(type(number) is int and 0 <= number <= MAX_INT for number in numbers)
    if not (are_numbers and all(isinstance(text, str) for text in hashes) and isinstance(entry.config, dict)):
        raise CheckpointError(f"{folder}/{MANIFEST} is damaged: a field has another type than it should")
    return entry


def parse_json(content: bytes) -> Any:
    """Return what a small file from outside holds.

    Raises:
        ValueError: it isn't JSON, or it is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def verify(entry: Entry, read: Callable[[str, int], bytes]) -> dict[str, bytes]:
    """Read the files of an entry and check them against its manifest.

    Args:
        entry: says which.
        read: called with a file's name and the bytes that it may have.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    files = {}
    for name, record in entry.files.items():
        try:
            data = read(name, record.size)
        except OSError as error:
            raise unread(f"{entry.folder}/{name}", error) from None
        if len(data) != record.size:
            raise CheckpointError(f"{entry.folder}/{name} has {len(data)} bytes, not the {record.size} of its manifest")
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise CheckpointError(f"{entry.folder}/{name} was altered: its SHA-256 is not that of its manifest")
        files[name] = data
    return files


def unread(path: str, error: OSError) -> CheckpointError | StorageError:
    """Return what a file that could not be read means: it is not there or not one of ours, or storage fails."""
    if may_pass(error) or isinstance(error, PermissionError):  # who may not read a store doesn't know what it holds
        return StorageError(f"storage fails at {path}: {error}; see that it can be reached and read")
    return CheckpointError(f"{path} can't be read: {error}")


@contextmanager
def refused_writes(path: str) -> Iterator[None]:
    """Tell of what could not be written within the context as an `InputError`.

    Raises:
        DiskFullError: there is no room for it.
        StorageError: for another reason.
    """
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(
            f"{path} can't be written: {error.strerror or error}; free some space, allow writing there, "
            "and see that nobody else writes it; then resume"
        ) from None


def write_folder(
    path: Path,
    files: Mapping[str, bytes],
    *,
    step: int,
    catalogue_hash: str,
    split_hash: str,
    config: Mapping[str, Any],
) -> Entry:
    """Write a checkpoint that stands alone; an older one there is replaced, together with all else in its folder.

    Raises:
        InputError: there is something at this path that is no checkpoint, and it is left alone; or the
            checkpoint can't be written (a full disk), and an older one is as it was.
    """
    path = path.resolve()
    if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists and is not a checkpoint folder; give another path, or remove it")
    entry = seal(str(path), files, Origin(0, 0, step, catalogue_hash, split_hash, config))
    with refused_writes(str(path)):
        LocalStorage(path.parent).write_folder(path.name, {**files, MANIFEST: entry.manifest()})
    return entry


def read_folder(path: Path) -> tuple[Entry, dict[str, bytes]]:
    """Return a checkpoint that stands alone, or one within a store, by its path.

    Raises:
        InputError: there is none at this path.
        CheckpointError: it is damaged; names the file and what is wrong with it.
    """
    try:
        manifest = LocalStorage(path).read(MANIFEST, MAX_MANIFEST_BYTES)
    except OSError as error:
        if isinstance(failure := unread(f"{path}/{MANIFEST}", error), StorageError):
            raise failure from None
        raise InputError(f"{path} is not a checkpoint: it has no {MANIFEST}; give the folder of a model") from None
    entry = parse_manifest(str(path), manifest)
    return entry, verify(entry, LocalStorage(path).read)


def _plain(name: str, folder: str) -> str:
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
        raise CheckpointError(f"{folder}: {name!r} can't be the name of a checkpoint's file")
    return name


def _file_record(size: int, sha256: str) -> FileRecord:
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES or not _SHA256.fullmatch(sha256):
        raise ValueError("a file's size or SHA-256 is not one")
    return FileRecord(size, sha256)
