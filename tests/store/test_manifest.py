"""The format of a checkpoint, by the folders that stand alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.store.manifest import CheckpointError, Origin, parse_manifest, read_folder, seal, write_folder

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
ORIGIN: dict[str, Any] = {"step": 7, "catalogue_hash": "c", "split_hash": "s", "config": {"epochs": 3}}


def test_a_folder_comes_back(tmp_path: Path) -> None:
    written = write_folder(tmp_path / "deep" / "student", FILES, **ORIGIN)
    entry, files = read_folder(tmp_path / "deep" / "student")
    assert entry == written
    assert (entry.step, entry.catalogue_hash, entry.split_hash, entry.config) == (7, "c", "s", {"epochs": 3})
    assert files == FILES


def test_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "student", FILES, **ORIGIN)
    write_folder(tmp_path / "student", {"model.safetensors": b"better"}, **ORIGIN)
    assert read_folder(tmp_path / "student")[1] == {"model.safetensors": b"better"}
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    write_folder(tmp_path / "student", FILES, **ORIGIN)
    assert read_folder(tmp_path / "student")[1] == FILES


def test_a_folder_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not a checkpoint folder"):
        write_folder(tmp_path, FILES, **ORIGIN)
    with pytest.raises(InputError, match="is not a checkpoint folder"):
        write_folder(tmp_path / "thesis.tex", FILES, **ORIGIN)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "student", FILES, **ORIGIN)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"student can't be written: No space left on device; free some space"):
        write_folder(tmp_path / "student", {"model.safetensors": b"better"}, **ORIGIN)
    assert read_folder(tmp_path / "student")[1] == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a checkpoint: it has no manifest\.json"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", ".hidden", "", "manifest.json", "a\0b"])
def test_names_that_are_not_plain_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="can't be the name"):
        seal("policies/v00000001", {name: b""}, Origin(1, 1, 0, "c", "s", {}))
    manifest = json.loads(seal("policies/v00000001", FILES, Origin(1, 1, 0, "c", "s", {})).manifest())
    manifest["files"][name] = manifest["files"]["config.json"]
    with pytest.raises(CheckpointError, match="can't be the name"):
        parse_manifest("policies/v00000001", json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 2),
        ("token", -1),
        ("token", 2**53 + 1),
        ("version", "1"),
        ("step", True),
        ("config", []),
        ("split_hash", None),
        ("files", []),
        ("files", {"a": {"size": 1}}),
        ("files", {"a": {"size": "1", "sha256": "0" * 64}}),
        ("files", {"a": {"size": -1, "sha256": "0" * 64}}),
        ("files", {"a": {"size": 2**60, "sha256": "0" * 64}}),
        ("files", {"a": {"size": 1, "sha256": "0"}}),
        ("files", {"a": 1}),
        ("further", 1),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    manifest = json.loads(seal("f", FILES, Origin(1, 1, 0, "c", "s", {})).manifest())
    manifest[field] = value
    with pytest.raises(CheckpointError, match=r"f/manifest\.json"):
        parse_manifest("f", json.dumps(manifest).encode())


def test_a_manifest_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(CheckpointError, match="nested too deeply"):
        parse_manifest("f", b'{"files": ' + b"[" * 100_000)


def test_a_manifest_of_no_sensible_size_is_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "student", FILES, **ORIGIN)
    with (tmp_path / "student" / "manifest.json").open("ab") as manifest:
        manifest.write(b" " * 2**20)
    with pytest.raises(InputError, match="is not a checkpoint"):
        read_folder(tmp_path / "student")
