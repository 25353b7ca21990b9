"""Storage: folders that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gptrec_rl.store.files import LocalStorage, ObjectStorage, Storage, open_storage, recover


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return LocalStorage(tmp_path) if request.param == "local" else ObjectStorage("memory://root/")


def test_roots_without_a_scheme_are_folders(tmp_path: Path) -> None:
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)
    assert isinstance(open_storage(f"file://{tmp_path}"), LocalStorage)
    assert isinstance(open_storage("memory://root"), ObjectStorage)


def test_folders_are_written_listed_replaced_and_removed(storage: Storage) -> None:
    assert storage.list("entries") == []
    storage.write_folder("entries/one", {"a": b"1", "b": b"2"})
    storage.write_folder("entries/two", {"a": b"3"})
    assert storage.list("entries") == ["one", "two"]
    assert storage.list("entries/one") == ["a", "b"]
    storage.write_folder("entries/one", {"c": b"4"})
    assert storage.list("entries/one") == ["c"]
    assert storage.read("entries/one/c", 100) == b"4"
    storage.remove("entries/one")
    storage.remove("entries/one")
    assert storage.list("entries") == ["two"]


def test_files_are_replaced_and_removed(storage: Storage) -> None:
    for content in (b"1", b"2"):
        storage.replace("LATEST", content)
        assert storage.read("LATEST", 100) == content
    storage.remove("LATEST")
    storage.remove("LATEST")
    with pytest.raises(OSError, match="LATEST"):
        storage.read("LATEST", 100)


def test_a_file_that_is_longer_than_its_reader_allows_is_not_read(storage: Storage) -> None:
    storage.replace("LATEST", b"12345")
    assert storage.read("LATEST", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        storage.read("LATEST", 4)


def test_a_replaced_folder_is_there_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write_folder("entry", {"a": b"old"})

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            storage.write_folder("entry", {"a": b"new"})
    assert storage.read("entry/a", 100) == b"new"
    (tmp_path / ".unfinished-entry-2-0123abcd").mkdir()  # of another folder
    storage.write_folder("entry", {"a": b"newer"})
    assert storage.list(".") == [".unfinished-entry-2-0123abcd", "entry"]


def test_a_folder_whose_successor_cannot_be_renamed_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    storage.write_folder("entry", {"a": b"old"})
    monkeypatch.setattr("gptrec_rl.store.files._renameat2", None)  # as on a file system that can't exchange
    rename, renamed = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        renamed.append(source)
        if len(renamed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="No space left"):
        storage.write_folder("entry", {"a": b"new"})
    assert storage.read("entry/a", 100) == b"old"
    assert storage.list(".") == ["entry"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't exchange names")
def test_a_folder_takes_the_place_of_another_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write_folder("entry", {"a": b"1"})
    monkeypatch.setattr(os, "rename", None)
    storage.write_folder("entry", {"a": b"2"})
    assert storage.read("entry/a", 9) == b"2"
    assert os.listdir(tmp_path) == ["entry"]


def test_what_a_killed_writer_left_without_its_name_gets_it_again(tmp_path: Path) -> None:
    for name, content, age in (("0" * 8, "new", 0), ("1" * 8, "old", 60)):
        folder = tmp_path / f".unfinished-state-{name}"
        folder.mkdir()
        (folder / "a").write_text(content)
        os.utime(folder, (1e9 - age, 1e9 - age))
    recover(tmp_path / "state")
    assert (tmp_path / "state" / "a").read_text() == "new"
    recover(tmp_path / "state")
    recover(tmp_path / "nothing")
    assert (tmp_path / "state" / "a").read_text() == "new"
    assert not (tmp_path / "nothing").exists()


def test_an_object_store_gets_the_last_file_last(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ObjectStorage("memory://ordered")
    written: list[str] = []
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda _self, path, _content, **_: written.append(path))
    storage.write_folder("entry", {"model": b"", "config": b"", "manifest": b""})
    assert written == ["/ordered/entry/model", "/ordered/entry/config", "/ordered/entry/manifest"]


def test_of_two_that_commit_one_entry_at_once_to_an_object_store_the_second_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    MemoryFileSystem.store.clear()
    storage, write = ObjectStorage("memory://root"), MemoryFileSystem.pipe_file

    def overtaken(self: MemoryFileSystem, path: str, content: bytes, **options: str) -> None:
        if path.endswith("manifest"):
            write(self, path, b"of the first")
        write(self, path, content, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", overtaken)
    with pytest.raises(FileExistsError):
        storage.write_folder("entry", {"model": b"", "manifest": b"of the second"})
    assert storage.read("entry/manifest", 100) == b"of the first"


class BackendError(Exception):
    """As botocore's and aiohttp's, which are no `OSError`."""


@pytest.mark.parametrize("call", ["cat_file", "ls", "pipe_file", "rm"])
@pytest.mark.parametrize("error", [BackendError("503 Slow Down"), TimeoutError("503 Slow Down")])
def test_whatever_a_backend_raises_is_an_error_of_storage_and_no_absence(
    call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = ObjectStorage("memory://root")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, call, fail)
    ask = {
        "cat_file": lambda: storage.read("a", 9),
        "ls": lambda: storage.list("a"),
        "pipe_file": lambda: storage.replace("a", b""),
        "rm": lambda: storage.remove("a"),
    }[call]
    with pytest.raises(OSError, match="503 Slow Down") as failed:
        ask()
    assert not isinstance(failed.value, FileNotFoundError)


def test_there_is_nothing_in_what_is_no_folder(storage: Storage) -> None:
    storage.replace("file", b"1")
    assert storage.list("file/entries") == []


def test_what_is_written_is_written_whatever_can_be_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", fail)
    storage.write_folder("entry", {"a": b"1"})
    storage.replace("LATEST", b"2")
    assert (storage.read("entry/a", 9), storage.read("LATEST", 9)) == (b"1", b"2")


def test_the_name_of_a_folder_that_cannot_be_removed_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    storage.write_folder("entry", {"a": b"1"})

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", busy)
    name = "entry"
    for _ in range(3):
        with pytest.raises(OSError, match="busy"):
            storage.remove(name)
        (name,) = storage.list(".")
    assert len(name) == len(".unfinished-entry-0123abcd")


def test_what_a_link_points_to_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic link"):
        LocalStorage(tmp_path).read("link", 1)


def test_what_is_no_file_is_not_read_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=rf"(regular file|directory).*{name}"):
            LocalStorage(tmp_path).read(name, 1)
