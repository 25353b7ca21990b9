"""The checkpoint store: readers see whole entries or none, whatever happens to the writer and the disk."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.files import LocalStorage, open_storage
from gptrec_rl.store.manifest import CheckpointError, Entry, Origin, read_folder, seal

T = TypeVar("T")

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40}
ORIGIN: dict[str, Any] = {"catalogue_hash": "c", "split_hash": "s", "config": {"learning_rate": 1e-5}}


@pytest.fixture(params=["folder", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return {"folder": str(tmp_path / "store"), "file": f"file://{tmp_path}/store", "memory": "memory://store"}[
        request.param
    ]


@pytest.fixture
def local(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(str(tmp_path))


def publish(store: CheckpointStore, version: int, token: int = 1, step: int | None = None) -> Entry:
    files = FILES | {"version": str(version).encode()}
    return store.publish_policy(
        files, Origin(token=token, version=version, step=20 * version if step is None else step, **ORIGIN)
    )


def save(store: CheckpointStore, step: int, token: int = 1) -> Entry:
    return store.save_learner(FILES | {"step": str(step).encode()}, Origin(token=token, version=1, step=step, **ORIGIN))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_store_has_nothing(root: str) -> None:
    store = CheckpointStore(root)
    assert store.latest_policy() is None
    assert store.read_latest_policy() is None
    assert store.read_latest_learner() is None
    assert store.best() is None
    assert store.policies() == []
    assert (store.highest_token(), store.highest_version()) == (0, 0)


def test_what_is_published_is_read_by_another(root: str) -> None:
    written = publish(CheckpointStore(root), version=123)
    reader = CheckpointStore(root)
    entry = reader.latest_policy()
    assert entry == written
    assert entry is not None
    assert (entry.folder, entry.token, entry.version, entry.step) == ("policies/v00000123-token_1", 1, 123, 2460)
    assert entry.config == {"learning_rate": 1e-5}
    assert reader.read(entry) == FILES | {"version": b"123"}


def test_a_learner_state_comes_back(root: str) -> None:
    written = save(CheckpointStore(root), step=2000)
    assert written.folder == "learner/step_00002000-token_1"
    assert CheckpointStore(root).read_latest_learner() == (written, FILES | {"step": b"2000"})


def test_the_newest_few_stay(root: str) -> None:
    store = CheckpointStore(root, keep_policies=3, keep_learner_states=2)
    for number in range(1, 7):
        publish(store, version=number)
        save(store, step=number)
    assert [entry.version for entry in store.policies()] == [4, 5, 6]
    assert [entry.step for entry in store.learner_states()] == [5, 6]


def test_the_best_stays_and_gives_way_only_to_a_better_one(root: str) -> None:
    store = CheckpointStore(root, keep_policies=1)
    first = publish(store, version=1)
    assert store.mark_best(first, 0.5)
    second = publish(store, version=2)
    assert not store.mark_best(second, 0.5)
    assert not store.mark_best(second, float("nan"))
    publish(store, version=3)
    assert store.best() == (first, 0.5)
    assert [entry.version for entry in store.policies()] == [1, 3]
    third = publish(store, version=4)
    assert store.mark_best(third, 0.6)
    publish(store, version=5)
    assert CheckpointStore(root).best() == (third, 0.6)
    assert [entry.version for entry in store.policies()] == [4, 5]


def test_a_score_that_is_not_a_number_is_never_the_best(root: str) -> None:
    store = CheckpointStore(root)
    assert not store.mark_best(publish(store, version=1), float("nan"))
    assert store.best() is None


def test_a_held_policy_stays_until_it_is_let_go(root: str) -> None:
    learner, validator = CheckpointStore(root, keep_policies=1), CheckpointStore(root)
    held = publish(learner, version=1)
    with validator.hold(held, "validator"):
        publish(learner, version=2)
        publish(learner, version=3)
        assert validator.read(held)["version"] == b"1"
        validator.mark_best(held, 0.1)
    publish(learner, version=4)
    assert [entry.version for entry in learner.policies()] == [1, 4]


@pytest.mark.parametrize("skew_s", [-7200.0, 90.0, 7200.0])
def test_a_hold_needs_no_two_clocks_to_agree(root: str, skew_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = CheckpointStore(root, keep_policies=1), CheckpointStore(root)
    held = publish(store, version=1)
    store.mark_best(held, 0.1)
    publish(store, version=2)
    store.mark_best(publish(store, version=3), 0.2)
    now = time.time()
    (kept,) = [entry for entry in store.policies() if entry.version == 3]
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + skew_s)
        hold = reader.hold(kept, "reader")
        hold.__enter__()
    store.mark_best(publish(store, version=4), 0.3)
    publish(store, version=5)
    assert kept in store.policies()
    hold.__exit__(None, None, None)
    publish(store, version=6)
    assert kept not in store.policies()


def test_an_object_store_that_answers_with_an_error_of_its_own_is_no_empty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = CheckpointStore("memory://sick")
    publish(store, version=1)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("503 Slow Down")

    for call in ("cat_file", "ls"):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, call, fails)
            with pytest.raises(StorageError, match="503 Slow Down"):
                CheckpointStore("memory://sick").highest_token()


OPERATIONS = ("read", "list", "replace", "write_folder", "remove")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("nth", range(12))
def test_storage_that_fails_once_loses_nothing_and_the_next_try_goes_on(
    operation: str, nth: int, local: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(3):
        publish(local, version=version)
    state = save(local, step=40)
    before, token, version = local.policies(), local.highest_token(), local.highest_version()
    calls, said = itertools.count(), list[str]()
    whole = getattr(LocalStorage, operation)

    def fails_once(self: LocalStorage, *arguments: object) -> object:
        if next(calls) == nth:
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, operation, fails_once)
        store = CheckpointStore(local.root)

        def persistently(do: Callable[[], T]) -> T:
            try:
                return do()
            except InputError as error:  # never an empty answer, nor a bare OSError
                said.append(str(error))
                return do()

        assert persistently(store.read_latest_learner)[0] == state  # type: ignore[index]
        assert (persistently(store.highest_token), persistently(store.highest_version)) == (token, version)
        newest = persistently(lambda: publish(store, version=3))
        assert persistently(store.latest_policy) == newest
    assert all("Input/output error" in words for words in said)
    assert [entry for entry in local.policies() if entry in before or entry == newest] == [*before, newest]
    assert local.latest_policy() == newest


def test_a_hold_of_a_dead_reader_runs_out(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(root, keep_policies=1)
    monkeypatch.setattr("gptrec_rl.store.checkpoints.HOLD_S", -1.0)
    with store.hold(publish(store, version=1), "validator"):
        publish(store, version=2)
        assert [entry.version for entry in store.policies()] == [2]


def test_an_older_optimiser_cannot_publish_or_save(root: str) -> None:
    older, newer = CheckpointStore(root), CheckpointStore(root)
    publish(older, version=1, token=1)
    publish(newer, version=2, token=2)
    with pytest.raises(CheckpointError, match="token 1, but one with 2 is at work"):
        publish(older, version=3, token=1)
    with pytest.raises(CheckpointError, match="token 1"):
        save(older, step=60, token=1)
    assert [entry.version for entry in newer.policies()] == [1, 2]


def test_a_version_is_published_once(root: str) -> None:
    store = CheckpointStore(root)
    publish(store, version=1, step=20)
    with pytest.raises(CheckpointError, match="v00000001-token_1 is already published"):
        publish(store, version=1, step=40)


def test_a_repeated_publish_of_the_same_policy_goes_on_from_where_it_was(local: CheckpointStore) -> None:
    assert publish(local, version=1) == publish(local, version=1)
    assert [entry.version for entry in local.policies()] == [1]


def _fail(*_: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def test_a_store_that_cannot_be_read_is_not_an_empty_one(
    local: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(local, step=20)
    publish(local, version=1)
    monkeypatch.setattr(LocalStorage, "read", _fail)
    for ask in (local.read_latest_learner, local.highest_token, local.latest_policy, local.best):
        with pytest.raises(StorageError, match="Input/output error"):
            ask()


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    local: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(local, step=20)
    monkeypatch.setattr(LocalStorage, "list", _fail)
    with pytest.raises(StorageError, match="Input/output error"):
        local.read_latest_learner()


def test_an_old_entry_that_cannot_be_removed_fails_no_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(str(tmp_path), keep_policies=1)
    publish(store, version=1)
    monkeypatch.setattr(LocalStorage, "remove", _fail)
    assert publish(store, version=2).version == 2
    monkeypatch.undo()
    publish(store, version=3)
    assert [entry.version for entry in store.policies()] == [3]


def test_a_newer_optimiser_s_policy_stands_beside_an_older_one_s_of_that_version_and_is_the_newest(root: str) -> None:
    store = CheckpointStore(root)
    older = publish(store, version=1, token=1)
    newer = publish(store, version=1, token=2)
    assert store.policies() == [older, newer]
    assert store.latest_policy() == newer
    assert [store.policy(token, 1) for token in (1, 2, 3)] == [older, newer, None]


def test_what_a_fenced_optimiser_writes_late_overwrites_nothing_and_is_nobodys_newest(root: str) -> None:
    store = CheckpointStore(root)
    older = publish(store, version=1, token=1)
    newer = publish(store, version=2, token=2)
    # As on an object store, where nothing stops a write after its last check: a policy of that version, and LATEST.
    late = seal("policies/v00000002-token_1", FILES, Origin(token=1, version=2, step=40, **ORIGIN))
    storage = open_storage(root)
    storage.write_folder(late.folder, {**FILES, "manifest.json": late.manifest()})
    storage.replace("LATEST", json.dumps({"folder": late.folder}).encode())
    fresh = CheckpointStore(root)
    assert fresh.latest_policy() == newer
    assert fresh.read(newer) == FILES | {"version": b"2"}
    assert fresh.policies() == [older, late, newer]
    assert publish(fresh, version=3, token=2) == CheckpointStore(root).latest_policy()


def test_policies_that_name_no_token_are_read(root: str) -> None:
    entry = seal("policies/v00000007", FILES, Origin(token=1, version=7, step=40, **ORIGIN))
    storage = open_storage(root)
    storage.write_folder(entry.folder, {**FILES, "manifest.json": entry.manifest()})
    storage.replace("LATEST", json.dumps({"folder": entry.folder}).encode())
    store = CheckpointStore(root)
    assert store.latest_policy() == store.policy(1, 7) == entry
    assert store.highest_version() == 7


def test_a_state_of_a_step_done_again_stands_beside_that_of_the_older_optimiser(root: str) -> None:
    store = CheckpointStore(root)
    older = save(store, step=40, token=2)
    newer = save(store, step=40, token=3)
    assert store.learner_states() == [older, newer]


def test_a_state_that_is_saved_already_stays_as_it_is(root: str) -> None:
    store = CheckpointStore(root)
    saved = save(store, step=40)
    assert store.save_learner({"other": b"1"}, Origin(token=1, version=2, step=40, **ORIGIN)) == saved
    assert store.read_latest_learner() == (saved, FILES | {"step": b"40"})


def test_a_state_whose_folder_names_no_token_is_resumed(local: CheckpointStore, tmp_path: Path) -> None:
    save(local, step=40)
    (tmp_path / "learner" / "step_00000040-token_1").rename(tmp_path / "learner" / "step_00000040")
    newest = local.read_latest_learner()
    assert newest is not None
    assert newest[0].step == 40


def test_a_learner_state_of_a_newer_optimiser_is_newer_at_a_smaller_step(root: str) -> None:
    store = CheckpointStore(root)
    save(store, step=300, token=1)
    save(store, step=200, token=2)
    newest = store.read_latest_learner()
    assert newest is not None
    assert newest[0].step == 200
    assert store.highest_token() == 2


def test_a_reader_never_goes_back_to_a_smaller_token(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    publish(store, version=1, token=1)
    newest = publish(store, version=2, token=2)
    reader = CheckpointStore(str(tmp_path))
    assert reader.latest_policy() == newest
    # A paused optimiser that passed the check before it was paused.
    (tmp_path / "LATEST").write_text(json.dumps({"folder": "policies/v00000001-token_1"}))
    assert reader.latest_policy() == newest


def damage_truncate(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])


def damage_alter(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x" + FILES["model.safetensors"][1:])


def damage_lose(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


DAMAGES = [
    pytest.param(damage_truncate, "model.safetensors has 10239 bytes, not the 10240", id="truncate"),
    pytest.param(damage_alter, "model.safetensors was altered", id="alter"),
    pytest.param(damage_lose, "model.safetensors can't be read", id="lose"),
]


@pytest.mark.parametrize(("damage", "complaint"), DAMAGES)
def test_damage_is_named_and_the_entry_before_is_used(
    local: CheckpointStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, complaint: str
) -> None:
    for number in (1, 2):
        publish(local, version=number)
        save(local, step=number)
    damage(tmp_path / "policies" / "v00000002-token_1")
    damage(tmp_path / "learner" / "step_00000002-token_1")
    with pytest.raises(CheckpointError, match=f"policies/v00000002-token_1/{complaint}"):
        local.read(local.policies()[-1])
    with caplog.at_level(logging.WARNING):
        policy, learner = local.read_latest_policy(), local.read_latest_learner()
    assert policy is not None
    assert policy[0].version == 1
    assert learner is not None
    assert learner[1]["step"] == b"1"
    assert [complaint in record.message for record in caplog.records] == [True, True]


def test_no_policy_of_a_smaller_token_stands_in_for_a_damaged_one(local: CheckpointStore, tmp_path: Path) -> None:
    publish(local, version=1, token=1)
    publish(local, version=2, token=2)
    damage_alter(tmp_path / "policies" / "v00000002-token_2")
    assert local.read_latest_policy() is None
    newest = publish(local, version=3, token=2)
    assert local.read_latest_policy() == (newest, FILES | {"version": b"3"})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format_version": 1}'])
def test_a_damaged_manifest_is_passed_over(local: CheckpointStore, tmp_path: Path, content: bytes) -> None:
    publish(local, version=1)
    publish(local, version=2)
    (tmp_path / "policies" / "v00000002-token_1" / "manifest.json").write_bytes(content)
    newest = local.latest_policy()
    assert newest is not None
    assert newest.version == 1


def test_a_folder_without_a_manifest_is_no_entry(local: CheckpointStore, tmp_path: Path) -> None:
    publish(local, version=1)
    (tmp_path / "policies" / "v00000002-token_1").mkdir()
    assert [entry.version for entry in local.policies()] == [1]


@pytest.mark.parametrize(
    "pointer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"folder": "../secret", "score": 1.0}',
        b'{"folder": "policies/../../secret", "score": 1.0}',
        b'{"folder": "policies/v00000001-token_1/../../../secret", "score": 1.0}',
        b'{"folder": 3, "score": 1.0}',
        b'{"folder": "policies/v00000001-token_1", "score": "high"}',
        b'{"folder": "policies/v00000001-token_1", "score": NaN}',
        b'{"folder": "policies/v00000001-token_1", "score": 1.0, "further": 1}',
        b"[" * 1000,
        b'{"folder": "policies/v00000001-token_1", "score": 1.0}' + b" " * 1000,
    ],
)
def test_a_damaged_pointer_is_done_without(local: CheckpointStore, tmp_path: Path, pointer: bytes) -> None:
    entry = publish(local, version=1)
    (tmp_path.parent / "secret").mkdir(exist_ok=True)
    (tmp_path.parent / "secret" / "manifest.json").write_bytes(entry.manifest())
    (tmp_path / "LATEST").write_bytes(pointer)
    (tmp_path / "BEST").write_bytes(pointer)
    assert local.latest_policy() == entry
    assert local.best() is None


@pytest.mark.parametrize("until", ["null", '"never"', "Infinity", "1e999"])
def test_a_hold_that_is_damaged_holds_nothing(local: CheckpointStore, tmp_path: Path, until: str) -> None:
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "a").write_text(f'{{"folder": "policies/v00000001-token_1", "until": {until}}}')
    for version in range(1, 9):
        publish(local, version=version)
    assert not (tmp_path / "policies" / "v00000001-token_1").exists()


def test_the_best_policy_stays_it_when_it_is_marked_again(local: CheckpointStore) -> None:
    one, other = publish(local, version=1), publish(local, version=2)
    assert [local.mark_best(one, 0.5), local.mark_best(one, 0.5), local.mark_best(other, 0.5)] == [True, True, False]


@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_a_full_disk_leaves_what_was_there(
    local: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before, state = publish(local, version=1), save(local, step=1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        written = "LATEST" if call == "replace" else "policies/v00000002-token_1"
        with pytest.raises(InputError, match=f"{tmp_path}/{written} can't be written: No space left"):
            publish(local, version=2)
        if call != "replace":  # which only pointers need
            with pytest.raises(InputError, match=r"learner/step_00000002\S* can't be written: No space left.*resume"):
                save(local, step=2)
    assert local.latest_policy() == before
    assert not list(tmp_path.rglob(".*"))
    if call != "replace":
        assert local.read_latest_learner() == (state, FILES | {"step": b"1"})
        assert names(tmp_path / "policies") == ["v00000001-token_1"]
        assert names(tmp_path / "learner") == ["step_00000001-token_1"]
    assert publish(local, version=3) == local.latest_policy()


ENDLESS_PUBLISHING = """
import sys
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import Origin

store = CheckpointStore(sys.argv[1], keep_policies=3)
version = store.highest_version()
while True:
    version += 1
    files = {"a": b"%d" % version * 5000, "b": b"%d" % version * 9000}
    store.publish_policy(files, Origin(store.highest_token() + 1, version, 0, "c", "s", {}))
    print(version, flush=True)
"""


@pytest.mark.integration
def test_a_writer_killed_at_any_instant_leaves_whole_policies_alone(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS_PUBLISHING, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        published = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        published = int((writer.communicate()[0].split() or [published])[-1])
        latest = store.read_latest_policy()
        assert latest is not None
        assert latest[0].version >= published
        assert latest[1]["a"] == b"%d" % latest[0].version * 5000
        for entry in store.policies():
            store.read(entry)
    publish(store, version=9999, token=9999)
    assert not [name for name in names(tmp_path / "policies") if name.startswith(".")]


def test_an_entry_can_be_read_by_its_path(local: CheckpointStore, tmp_path: Path) -> None:
    publish(local, version=1)
    entry, files = read_folder(tmp_path / "policies" / "v00000001-token_1")
    assert entry.version == 1
    assert files == FILES | {"version": b"1"}
