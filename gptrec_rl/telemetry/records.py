"""The metrics stream on disk: what the Supervisor keeps of a run in its folder, each record exactly once."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from gptrec_rl.errors import InputError
from gptrec_rl.files import write_atomically
from gptrec_rl.store.manifest import parse_json, refused_writes
from gptrec_rl.telemetry.event_files import FOLDER, EventFiles
from gptrec_rl.telemetry.pictures import PathPicture
from gptrec_rl.telemetry.stream import START, MetricRecord

logger = logging.getLogger(__name__)

_CURSOR = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


class RunRecords:
    """All records in `metrics.jsonl` and in event files for TensorBoard; the validator's scores in `validations.jsonl`.

    `metrics.cursor`, replaced after each batch, holds the place in the stream and the sizes of both JSONL files.
    Opening cuts off what a killed process wrote without getting as far, and that part of the stream is read again; to
    TensorBoard a value that comes twice is one.

    Args:
        run_dir: an existing folder; what is in it is added to.

    Raises:
        InputError: `metrics.cursor` is damaged.
        StorageError: the folder can't be written now.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._files = {name: run_dir / name for name in ("metrics.jsonl", "validations.jsonl")}
        self._path = PathPicture(run_dir)
        self._state = run_dir / "metrics.cursor"
        self._not_made: set[str] = set()
        with refused_writes(str(run_dir)):
            for file in self._files.values():
                file.touch()
            if not self._state.exists():
                self._keep_place(START)
            self.cursor = self._go_back()
        """The place in the stream after the last record on disk."""

    def append(self, records: Sequence[MetricRecord], cursor: str) -> None:
        """Write records and the place after them.

        Raises:
            OSError: they have no room; nothing is kept of them but on TensorBoard, and the same call may come again.
        """
        try:
            self._write(records)
            self._keep_place(cursor)
        except OSError:
            self._go_back()
            raise
        self.cursor = cursor

    def _go_back(self) -> str:
        """Cut off what was written since the place was kept last; return that place."""
        cursor, sizes = self._read_place()
        for name, file in self._files.items():
            os.truncate(file, min(sizes[name], file.stat().st_size))
        self._event_files = EventFiles(self._run_dir / FOLDER)  # the last record of the old ones may be half of one
        return cursor

    def _write(self, records: Sequence[MetricRecord]) -> None:
        scores = [r for r in records if r.role == "validator" and any(name.startswith("val/") for name in r.values)]
        for file, kept in zip(self._files.values(), (records, scores), strict=True):
            with file.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(asdict(record)) + "\n" for record in kept)
        self._for_show(f"{FOLDER}'s event files", lambda: self._add_events(records))
        if scores:
            self._for_show("the validator's path", self._path.refresh)

    def _add_events(self, records: Sequence[MetricRecord]) -> None:
        for record in records:
            self._event_files.add(record)

    def _for_show(self, what: str, make: Callable[[], object]) -> None:
        """Make what is only looked at: if that fails, records are kept, and the run goes on."""
        try:
            make()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no room for records either: waited for
                raise
            self._say_not_made(what, error)
        except Exception as error:  # somebody else's code, for fonts, colours and files that nobody reads here
            self._say_not_made(what, error)

    def _say_not_made(self, what: str, error: Exception) -> None:
        if what not in self._not_made:
            logger.warning("%s can't be made (%s: %s); the run goes on without", what, type(error).__name__, error)
        self._not_made.add(what)

    def _read_place(self) -> tuple[str, dict[str, int]]:
        try:
            state = parse_json(self._state.read_bytes())
            cursor, sizes = str(state["cursor"]), {name: int(state["sizes"][name]) for name in self._files}
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise self._damaged(repr(error)) from None
        if not _CURSOR.fullmatch(cursor) or min(sizes.values()) < 0:
            raise self._damaged(f"cursor {cursor!r:.40}, sizes {sizes!r:.80}")
        return cursor, sizes

    def _damaged(self, problem: str) -> InputError:
        return InputError(
            f"{self._state} is damaged ({problem}); remove it, and what Redis has of the run is written down once more"
        )

    def _keep_place(self, cursor: str) -> None:
        sizes = {name: file.stat().st_size for name, file in self._files.items()}
        write_atomically(self._state, json.dumps({"cursor": cursor, "sizes": sizes}))
