"""What is wrong with a training (`train`, `pretrain`), live or dead, from the files in its folder alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptrec_rl.config_files import MAX_FILE_BYTES
from gptrec_rl.errors import InputError
from gptrec_rl.reporting.documents import duration
from gptrec_rl.store.manifest import MANIFEST, CheckpointError, parse_json, read_folder
from gptrec_rl.telemetry.ending import End, read_end
from gptrec_rl.telemetry.folders import CONFIG, require_training
from gptrec_rl.telemetry.holdups import Finding

STATE = "state"
SILENT_AFTER_S = 600.0
"""A training saves where it is far more often."""


@dataclass(frozen=True)
class TrainingEvidence:
    """What is looked at.

    Attributes:
        folder: the run folder.
        command: that made it.
        end: of the last attempt.
        step: of the saved state; 0 without one.
        best_loss: of the best weights by validation; infinite before the first.
        saved_at: when the state, or else the configuration, was written, in seconds since the epoch.
        damage: what is wrong with the saved state; empty for a sound one.
        now: in seconds since the epoch.
    """

    folder: Path
    command: str
    end: End | None
    step: int
    best_loss: float
    saved_at: float
    damage: str
    now: float

    @classmethod
    def gather(cls, folder: Path, now: float) -> TrainingEvidence:
        """Read a run folder; raises `InputError` if it is none of a training."""
        command, state = require_training(folder), folder / STATE
        step, best_loss, damage = 0, math.inf, ""
        if (state / MANIFEST).exists():
            try:
                counters = parse_json(read_folder(state)[1]["counters.json"][:MAX_FILE_BYTES])
                step, best_loss = int(counters["step"]), float(counters["best_loss"])
            except (CheckpointError, InputError, LookupError, TypeError, ValueError) as error:
                damage = str(error)
        written = state / MANIFEST if (state / MANIFEST).exists() else folder / CONFIG
        return cls(folder, command, read_end(folder), step, best_loss, written.stat().st_mtime, damage, now)

    def __str__(self) -> str:
        """Say in one line what it is and how far it is."""
        loss = f", best validation loss {self.best_loss:.4f}" if math.isfinite(self.best_loss) else ""
        how = "goes on" if self.end is None else str(self.end)
        return f"a training (`gptrec-rl {self.command}`), {how}, at step {self.step:,}{loss}"


def examine_training(evidence: TrainingEvidence) -> list[Finding]:
    """Return what is wrong."""
    return list(_findings(evidence))


def _findings(evidence: TrainingEvidence) -> Iterator[Finding]:
    end, silent_s = evidence.end, evidence.now - evidence.saved_at
    resume = "The same command with --on-existing resume goes on"
    if evidence.damage:
        yield Finding(f"The saved state is damaged: {evidence.damage}", "Train again with --on-existing overwrite.")
    if end is not None and end.how == "failed":
        yield Finding(f"The training ended with an error: {end.cause}", f"Mend that. {resume}.")
    elif end is not None and end.how == "stopped":
        ago = duration(evidence.now - end.time)
        yield Finding(f"The training was {end} {ago} ago, at step {evidence.step:,}", f"{resume}.")
    elif end is None and silent_s > SILENT_AFTER_S:
        yield Finding(
            f"The training has saved nothing for {duration(silent_s)}, and did not come to an end",
            f"Unless a process is still at work on it, it was killed. {resume}.",
        )
    if end is not None and end.how == "finished" and not math.isfinite(evidence.best_loss):
        yield Finding("The training ended without a validation, and so without a model", f"{resume}, a larger budget.")
    for line in _diverged(evidence.folder):
        yield Finding(f"A validation loss is {line}", "Train again with a smaller learning_rate.")


def _diverged(folder: Path) -> Iterator[float]:
    """Yield the last validation loss if it is no finite number."""
    log = folder / "metrics.jsonl"
    if not log.exists():
        return
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        loss = json.loads(lines[-1])["validation_loss"] if lines else 0.0
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # half a line
    if isinstance(loss, float) and not math.isfinite(loss):
        yield loss
