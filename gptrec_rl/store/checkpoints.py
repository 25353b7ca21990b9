"""The checkpoint store: policies for generators and the validator, learner states for resuming.

An entry is a folder of files with a manifest, which commits it. The optimiser alone writes entries and `LATEST`, the
validator alone `BEST`; all read. Whatever is damaged is found by its checksum, and the entry before it is used.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gptrec_rl.errors import StorageError
from gptrec_rl.store.files import Check, open_storage
from gptrec_rl.store.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    CheckpointError,
    Entry,
    FencedError,
    Origin,
    parse_json,
    parse_manifest,
    refused_writes,
    seal,
    unread,
    verify,
)

logger = logging.getLogger(__name__)

POLICIES = "policies"
LEARNER = "learner"
HOLDS = "holds"
LATEST = "LATEST"
BEST = "BEST"
FIRST_VERSION = 0
"""Of the student, with which all policies of a run are compared."""
HOLD_S = 3600.0
MAX_POINTER_BYTES = 1024

_TOKEN = re.compile(r"-token_([0-9]{1,16})$")  # no two optimisers write one name; older entries name no token
_ENTRY_NAME = re.compile(rf"(v|step_)[0-9]{{8,16}}({_TOKEN.pattern})?")
_POLICY_FOLDER = re.compile(rf"{POLICIES}/v[0-9]{{8,16}}({_TOKEN.pattern})?")


class CheckpointStore:
    """Policies and learner states below one root.

    Args:
        root: a folder, or a URL of what fsspec knows (``s3://bucket/run``, ``memory://name``).
        keep_policies: how many of the newest policies stay, more than the staleness bound; held ones and the best
            stay as well, and until there is a best one version 0.
        keep_learner_states: how many of the newest learner states stay.
    """

    def __init__(self, root: str, keep_policies: int = 6, keep_learner_states: int = 2) -> None:
        self.root = root
        self._storage = open_storage(root)
        self._keep = {POLICIES: keep_policies, LEARNER: keep_learner_states}
        self._highest_token = 0
        self._seen_holds: dict[str, tuple[dict[str, Any], float]] = {}

    def publish_policy(self, files: Mapping[str, bytes], origin: Origin) -> Entry:
        """Make a policy the newest one; (token, version) only grow.

        Raises:
            CheckpointError: a newer optimiser has published or saved, so this one has lost its lease.
            DiskFullError: there is no room for it; what was there before is as it was.
            InputError: it can't be written for another reason.
        """
        entry = seal(_policy_folder(origin.token, origin.version), files, origin)
        self._commit(entry, files)
        self._fence()
        self._replace(LATEST, {"folder": entry.folder}, lambda: self._refuse_after_a_newer(entry))
        self._tidy(POLICIES)
        return entry

    def save_learner(self, files: Mapping[str, bytes], origin: Origin) -> Entry:
        """Save all that an optimiser needs to go on from this step; errors as in `publish_policy`.

        Nothing takes the place of a state: one of the same token and step stays, and is returned.
        """
        folder = f"{LEARNER}/step_{origin.step:08d}-token_{origin.token}"
        if saved := self._load_entry(folder):
            return saved
        entry = seal(folder, files, origin)
        self._commit(entry, files)
        self._tidy(LEARNER)
        return entry

    def policies(self) -> list[Entry]:
        """Return all policies, oldest first: by token, then version."""
        return self._entries(POLICIES)

    def learner_states(self) -> list[Entry]:
        """Return all learner states, oldest first: by token, then step."""
        return self._entries(LEARNER)

    def latest_policy(self) -> Entry | None:
        """Return the newest policy, None before the first; cheap enough to ask every second.

        One with a smaller token than another policy's, or than the largest that this store object has seen, is never
        returned: on an object store an optimiser that lost its lease may still write LATEST.
        """
        latest = self._load_pointer(LATEST)
        entry = self._load_entry(latest["folder"]) if latest else None
        if entry is None or entry.token < max(self._highest_token, self._highest_token_of_names()):
            policies = self._current_policies()
            entry = policies[-1] if policies else None
        if entry is not None:
            self._highest_token = entry.token
        return entry

    def policy(self, token: int, version: int) -> Entry | None:
        """Return a policy by its origin, None for one that is gone or never was."""
        for folder in (_policy_folder(token, version), f"{POLICIES}/v{version:08d}"):
            entry = self._load_entry(folder)
            if entry is not None and entry.token == token:
                return entry
        return None

    def read(self, entry: Entry) -> dict[str, bytes]:
        """Return the files of an entry, checked against its manifest.

        Raises:
            CheckpointError: names the file and what is wrong with it.
        """
        return verify(entry, lambda name, at_most: self._storage.read(f"{entry.folder}/{name}", at_most))

    def read_latest_policy(self) -> tuple[Entry, dict[str, bytes]] | None:
        """Return the newest policy that is whole, with its files; None when there is none; see `latest_policy`."""
        newest = self.latest_policy()
        if newest is None:
            return None
        try:
            return newest, self.read(newest)
        except CheckpointError as error:
            logger.warning("policy passed over: %s", error)
        return self._read_newest([policy for policy in self._current_policies() if policy != newest])

    def read_latest_learner(self) -> tuple[Entry, dict[str, bytes]] | None:
        """Return the newest learner state that is whole, with its files; None when there is none."""
        return self._read_newest(self.learner_states())

    def mark_best(self, entry: Entry, score: float) -> bool:
        """Make a policy the best one if its score is higher than the best one's, and return whether it is the best.

        Keep it with `hold` from before it is read until it is marked. Errors as in `hold`.
        """
        best = self.best()
        if not math.isfinite(score):
            return False
        if best is not None and score <= best[1]:
            return best[0] == entry  # it is since an earlier try, after which something else failed
        self._replace(BEST, {"folder": entry.folder, "score": float(score)})
        return True

    def best(self) -> tuple[Entry, float] | None:
        """Return the best policy and its score, None before the first."""
        best = self._load_pointer(BEST, "score")
        entry = self._load_entry(best["folder"]) if best else None
        return (entry, best["score"]) if best and entry else None

    @contextmanager
    def hold(self, entry: Entry, holder: str) -> Iterator[None]:
        """Keep a policy from being removed within the context.

        Args:
            entry: which.
            holder: a plain name; one holder holds one policy. One that died gives its own back with the next, and
                who removes policies waits for it an hour from when it saw the hold, by its own clock alone.

        Raises:
            DiskFullError: there is no room to say so.
        """
        path = f"{HOLDS}/{holder}"
        self._replace(path, {"folder": entry.folder, "until": time.time() + HOLD_S})
        try:
            yield
        finally:
            self._discard(path)

    def highest_token(self) -> int:
        """Return the largest token of any entry, 0 without one; a new optimiser's is larger."""
        return max((entry.token for entry in self.policies() + self.learner_states()), default=0)

    def highest_version(self) -> int:
        """Return the largest version of any policy, 0 without one; the next one published is larger."""
        return max((entry.version for entry in self.policies()), default=0)

    def _highest_token_of_names(self) -> int:
        names = self._list(POLICIES)
        return max((int(found[1]) for name in names if (found := _TOKEN.search(name))), default=0)

    def _current_policies(self) -> list[Entry]:
        return [policy for policy in self.policies() if policy.token >= self._highest_token]

    def _commit(self, entry: Entry, files: Mapping[str, bytes]) -> None:
        self._refuse_after_a_newer(entry)
        there = self._load_entry(entry.folder)
        if there == entry:  # committed by a try that failed after it
            return
        if there is not None and there.token == entry.token:
            raise CheckpointError(f"{entry.folder} is already published; versions only grow")
        with refused_writes(f"{self.root}/{entry.folder}"):
            files = {**files, MANIFEST: entry.manifest()}
            self._storage.write_folder(entry.folder, files, lambda: self._refuse_after_a_newer(entry))

    def _refuse_after_a_newer(self, entry: Entry) -> None:
        highest = self.highest_token()
        if entry.token < highest:
            raise FencedError(
                f"{entry.folder} has token {entry.token}, but one with {highest} is at work; stop this one"
            )

    def _fence(self) -> None:
        """Take away what earlier optimisers have not committed.

        One that was paused before its last check finds our entry; one that was paused after it finds nothing to commit.
        """
        for folder in ("", f"{POLICIES}/", f"{LEARNER}/"):
            for name in self._list(folder):
                if name.startswith(".") and (folder or LATEST in name):  # the others in the root are the validator's
                    self._discard(f"{folder}{name}")  # else it comes to be one of a smaller token: nobody's newest

    def _replace(self, path: str, content: Mapping[str, Any], check: Check = lambda: None) -> None:
        with refused_writes(f"{self.root}/{path}"):
            self._storage.replace(path, json.dumps(content).encode(), check)

    def _entries(self, kind: str) -> list[Entry]:
        folders = (f"{kind}/{name}" for name in self._list(kind) if _ENTRY_NAME.fullmatch(name))
        entries = [entry for folder in folders if (entry := self._load_entry(folder))]
        return sorted(entries, key=lambda entry: (entry.token, entry.version, entry.step))

    def _read_newest(self, entries: list[Entry]) -> tuple[Entry, dict[str, bytes]] | None:
        for entry in reversed(entries):
            try:
                return entry, self.read(entry)
            except CheckpointError as error:
                logger.warning("checkpoint passed over: %s", error)
        return None

    def _list(self, folder: str) -> list[str]:
        try:
            return self._storage.list(folder)
        except OSError as error:
            raise StorageError(f"storage fails at {folder or self.root}: {error}; see that it can be read") from None

    def _load_entry(self, folder: str) -> Entry | None:
        try:
            return parse_manifest(folder, self._storage.read(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES))
        except OSError as error:
            if isinstance(failure := unread(f"{folder}/{MANIFEST}", error), StorageError):
                raise failure from None
            return None  # not committed, removed, or of no sensible size
        except CheckpointError as error:
            logger.warning("checkpoint passed over: %s", error)
            return None

    def _load_pointer(self, path: str, *numbers: str) -> dict[str, Any] | None:
        """Return a pointer's folder and its numbers; None when it isn't there, or damaged by something else than us."""
        try:
            content = parse_json(self._storage.read(path, MAX_POINTER_BYTES))
        except OSError as error:
            if isinstance(failure := unread(path, error), StorageError):
                raise failure from None
            return None
        except ValueError:
            return None
        if not isinstance(content, dict) or content.keys() != {"folder", *numbers}:
            return None
        are_numbers = all(type(content[name]) is float and math.isfinite(content[name]) for name in numbers)
        is_sound = are_numbers and _POLICY_FOLDER.fullmatch(str(content["folder"]))
        return content if is_sound else None

    def _held_folders(self) -> set[str]:
        held = set()
        for name in self._list(HOLDS):
            hold, now = self._load_pointer(f"{HOLDS}/{name}", "until"), time.monotonic()
            if hold is None:
                continue
            if name not in self._seen_holds or self._seen_holds[name][0] != hold:
                self._seen_holds[name] = hold, now
            if now - self._seen_holds[name][1] < HOLD_S:
                held.add(hold["folder"])
            else:
                self._discard(f"{HOLDS}/{name}")
        return held

    def _tidy(self, kind: str) -> None:
        """Remove what is superseded; what can't be read or removed now stays until the next time."""
        try:
            self._retain(kind)
        except (OSError, StorageError) as error:
            logger.warning("old %s entries stay for now: %s", kind, error)

    def _retain(self, kind: str) -> None:
        there = self._list(kind)  # first of all: what comes later, from a newer optimiser, stays
        held = self._held_folders()
        best = self._load_pointer(BEST, "score")  # after the holds: a reader marks before it lets go
        newest = [entry.folder for entry in self._entries(kind)[-self._keep[kind] :]]
        unscored = [] if best else [entry.folder for entry in self.policies() if entry.version == FIRST_VERSION]
        kept = {*held, *newest, *unscored, *([best["folder"]] if best else [])}
        for name in there:  # with what a killed writer left unfinished
            if f"{kind}/{name}" not in kept:
                self._discard(f"{kind}/{name}")

    def _discard(self, path: str) -> None:
        """Remove what nobody needs any more; what can't be removed now stays until the next time."""
        try:
            self._storage.remove(path)
        except OSError as error:
            logger.warning("%s stays for now: %s", path, error)


def _policy_folder(token: int, version: int) -> str:
    return f"{POLICIES}/v{version:08d}-token_{token}"
