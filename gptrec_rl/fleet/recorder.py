"""The recorder: which batch each step of the learner drew, kept in the run folder for `tune --replay`.

Each optimiser of a run writes a file of its own, named by its fencing token: a header, its draws, and what it
published. `recording.py` reads them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.network import WEIGHTS_FILE
from gptrec_rl.store.manifest import Entry
from gptrec_rl.transport.messages import RolloutBatch, encode, pack

FOLDER = "draws"
HEADER, DRAWN, PUBLISHED = "header", "drawn", "published"
LENGTH = struct.Struct("<II")
"""What stands before each message: how many bytes it has, and the CRC-32 of that number."""

logger = logging.getLogger(__name__)


class Recorder:
    """Writes down one optimiser's draws; where there is no room for more it says so once, and the run goes on.

    Args:
        run_dir: the run folder.
        config: the run's configuration; `fleet.record_gb` bounds all files of the recording together.
        split: the data, for its hashes.
        student: the policy that the run started from, on the device that learns.
    """

    def __init__(self, run_dir: Path, config: TuneConfig, split: Split, student: GPTRec) -> None:
        self._folder = run_dir / FOLDER
        self._limit_gb = config.fleet.record_gb
        self._header = {
            "config": config.model_dump(mode="json"),
            "catalogue_hash": split.catalogue.hash,
            "split_hash": split.hash,
            "student": weights_hash(student),
            "device": student.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        self._file: int | None = None
        self._room = 0.0
        self._kept: set[tuple[int, int]] = set()

    def start(self, token: int, step: int) -> None:
        """Begin the file of the optimiser with this token; what others did after this step is undone."""
        if self._file is not None:  # a start that failed is tried again
            os.close(self._file)
            self._file = None
        try:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{token:08d}.draws"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            self._end(None, error)
            return
        self._room = float("inf")  # a header there always is
        self._write({"kind": HEADER, "token": token, "step": step, **self._header})
        self._room = 1e9 * self._limit_gb - sum(file.stat().st_size for file in self._folder.iterdir())

    def drawn(self, step: int, batch: RolloutBatch) -> None:
        """Write down the batch that a step drew; one that was drawn before is only named."""
        key = (batch.generator_id, batch.sequence_number)
        body = {"kind": DRAWN, "step": step, "generator_id": key[0], "sequence_number": key[1]}
        self._write(body if key in self._kept else {**body, "batch": encode(batch)})
        self._kept.add(key)

    def published(self, policy: Entry) -> None:
        """Write down the checksum of a policy that was published."""
        self._write({"kind": PUBLISHED, "step": policy.step, "sha256": policy.files[WEIGHTS_FILE].sha256})

    def sync(self) -> None:
        """Make sure that the draws so far outlast the machine; before a learner state that goes on from them."""
        if self._file is None:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            self._end(self._file, error)

    def _write(self, body: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        message = pack(body)
        frame = LENGTH.pack(len(message), length_checksum(len(message))) + message
        try:
            if len(frame) > self._room:
                raise OSError(f"it has {self._limit_gb:g} GB, the most that fleet.record_gb allows")
            if os.write(self._file, frame) < len(frame):
                raise OSError("there is no room left on its disk")
            self._room -= len(frame)
        except OSError as error:
            self._end(self._file, error)

    def _end(self, file: int | None, error: OSError) -> None:
        logger.warning("the recording in %s ends: %s; the run goes on", self._folder, error)
        if file is not None:
            os.close(file)
        self._file = None


def length_checksum(length: int) -> int:
    """Return the CRC-32 of a message's length."""
    return zlib.crc32(length.to_bytes(4, "little"))


def weights_hash(policy: GPTRec) -> str:
    """Return the SHA-256 of a policy's weights, as its manifest has it."""
    return hashlib.sha256(policy.to_files()[WEIGHTS_FILE]).hexdigest()
