"""The store's protocol, one file operation at a time: a writer that is killed, or paused, before each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import Entry, Origin

WRITER = """
import os, signal, sys
from pathlib import Path
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import CheckpointError, Origin

root, before_operation, action, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
token, step = (2, 3) if what == "state of a step done again" else (1, 4)
origin = Origin(token=token, version=4, step=step, catalogue_hash="c", split_hash="s", config={})
writes = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
store = CheckpointStore(str(root), keep_policies=2, keep_learner_states=1)
n_operations = 0

def count(event, arguments):
    global n_operations
    if event in writes and isinstance(arguments[0], (str, Path)) and str(root) in str(arguments[0]):
        n_operations += 1
        if n_operations == before_operation:
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            print("paused", flush=True)
            sys.stdin.readline()

files = {"a": b"4" * 5000, "b": b"4" * 9000}
sys.addaudithook(count)
try:
    if what == "policy":
        store.publish_policy(files, origin)
    elif what.startswith("state"):
        store.save_learner(files, origin)
    else:
        entry = store.latest_policy()
        with store.hold(entry, "validator"):
            store.mark_best(entry, 0.75)
except CheckpointError as error:
    print(error, flush=True)
    sys.exit(3)
print("done", n_operations, flush=True)
"""


def publish(store: CheckpointStore, version: int, token: int = 1) -> Entry:
    files = {"a": b"%d" % version * 5000, "b": b"%d" % version * 9000}
    return store.publish_policy(files, Origin(token=token, version=version, step=version, **ORIGIN))


ORIGIN = {"catalogue_hash": "c", "split_hash": "s", "config": {}}


def save(store: CheckpointStore, step: int, token: int = 1) -> Entry:
    return store.save_learner({"a": b"%d" % step * 5000}, Origin(token=token, version=step, step=step, **ORIGIN))


def new_store(root: Path) -> CheckpointStore:
    """Return a store with the policies 1 to 3, the learner state 3, and 2 as the best policy."""
    store = CheckpointStore(str(root), keep_policies=2, keep_learner_states=1)
    for version in (1, 2, 3):
        entry = publish(store, version)
        if version == 2:
            store.mark_best(entry, 0.5)
    save(store, 3)
    return store


def writer(root: Path, before_operation: int, action: str, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), str(before_operation), action, what]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def n_operations(root: Path, what: str) -> int:
    new_store(root)
    output, _ = writer(root, 0, "kill", what).communicate()
    assert output.startswith("done ")
    return int(output.split()[1])


def assert_it_is_sound(root: Path) -> None:
    """Check that every committed entry is whole, that readers get the newest, and that the next writer cleans up."""
    store = CheckpointStore(str(root), keep_policies=2, keep_learner_states=1)
    for entry in store.policies() + store.learner_states():
        store.read(entry)
    read, state, best = store.read_latest_policy(), store.read_latest_learner(), store.best()
    assert read is not None
    assert state is not None
    assert best is not None
    assert read[0].version in (3, 4)
    assert state[0].step in (3, 4)
    assert best[1] in (0.5, 0.75)
    store.read(best[0])
    publish(store, store.highest_version() + 1, token=2)
    save(store, 9, token=2)
    with store.hold(best[0], "validator"):
        store.mark_best(best[0], 0.9)
    assert [path for path in root.rglob(".*") if path.is_dir() or path.is_file()] == []


@pytest.mark.parametrize("what", ["policy", "state", "state of a step done again", "best"])
def test_a_writer_may_be_killed_before_any_of_its_operations(tmp_path: Path, what: str) -> None:
    total = n_operations(tmp_path / "counted", what)
    assert total >= 8
    writers = []
    for place in range(1, total + 1):
        new_store(tmp_path / str(place))
        writers.append(writer(tmp_path / str(place), place, "kill", what))
    for place, killed in enumerate(writers, start=1):
        assert killed.communicate()[0] == ""
        assert_it_is_sound(tmp_path / str(place))


@pytest.mark.parametrize("what", ["policy", "state"])
def test_an_optimiser_paused_before_any_of_its_operations_cannot_publish_when_another_has_taken_over(
    tmp_path: Path, what: str
) -> None:
    total = n_operations(tmp_path / "counted", what)
    writers = []
    for place in range(1, total + 1):
        new_store(tmp_path / str(place))
        writers.append(writer(tmp_path / str(place), place, "pause", what))
    for place, paused in enumerate(writers, start=1):
        assert paused.stdout is not None
        assert paused.stdout.readline() == "paused\n"
        root = tmp_path / str(place)
        newer = CheckpointStore(str(root), keep_policies=2, keep_learner_states=1)
        policy = publish(newer, newer.highest_version() + 1, token=2)
        there = set(entries(newer))
        paused.communicate("\n")
        assert set(entries(newer)) <= there, f"something old came up after operation {place}"
        assert CheckpointStore(str(root)).read_latest_policy() == (policy, newer.read(policy))
        for entry in newer.policies() + newer.learner_states():
            newer.read(entry)


def entries(store: CheckpointStore) -> list[tuple[str, int]]:
    return [(entry.folder, entry.token) for entry in store.policies() + store.learner_states()]
