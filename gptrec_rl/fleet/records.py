"""The metrics stream on disk: what the Supervisor keeps of a run in its folder, each record exactly once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gptrec_rl.fleet.tensorboard import FOLDER, EventFiles
from gptrec_rl.transport.metrics import START, MetricRecord


class RunRecords:
    """All records in `metrics.jsonl` and in event files for TensorBoard; the validator's scores in `validations.jsonl`.

    `metrics.cursor`, replaced after each batch, holds the place in the stream and the sizes of both JSONL files.
    Opening cuts off what a killed process wrote without getting as far, and that part of the stream is read again; to
    TensorBoard a value that comes twice is one.

    Args:
        run_dir: an existing folder; what is in it is added to.
    """

    def __init__(self, run_dir: Path) -> None:
        self._files = {name: run_dir / name for name in ("metrics.jsonl", "validations.jsonl")}
        self._event_files = EventFiles(run_dir / FOLDER)
        self._state = run_dir / "metrics.cursor"
        for file in self._files.values():
            file.touch()
        if not self._state.exists():
            self._keep_place(START)
        state = json.loads(self._state.read_text(encoding="utf-8"))
        self.cursor: str = state["cursor"]
        """The place in the stream after the last record on disk."""
        for name, size in state["sizes"].items():
            os.truncate(self._files[name], size)

    def append(self, records: Sequence[MetricRecord], cursor: str) -> None:
        """Write records and the place after them."""
        scores = [r for r in records if r.role == "validator" and any(name.startswith("val/") for name in r.values)]
        for file, kept in zip(self._files.values(), (records, scores), strict=True):
            with file.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(asdict(record)) + "\n" for record in kept)
        for record in records:
            self._event_files.add(record)
        self._keep_place(cursor)
        self.cursor = cursor

    def _keep_place(self, cursor: str) -> None:
        sizes = {name: file.stat().st_size for name, file in self._files.items()}
        replacement = self._state.with_suffix(".tmp")
        replacement.write_text(json.dumps({"cursor": cursor, "sizes": sizes}), encoding="utf-8")
        os.replace(replacement, self._state)
