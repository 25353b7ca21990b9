"""A run's metrics as TensorBoard event files: one of its "runs" for each process of the fleet, and pictures."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptrec_rl.telemetry.stream import MetricRecord

if TYPE_CHECKING:
    from tensorboardX.record_writer import RecordWriter

FOLDER = "tensorboard"
FILE_VERSION = "brain.Event:2"

_RGBA = 4
_PNG_SIZE = slice(16, 24)  # width and height in a PNG's header


class EventFiles:
    """Writes below one folder; what an earlier process wrote there stays.

    Events are made and framed by tensorboardX. Its `SummaryWriter` would write them from a thread, whose queue blocks
    for ever once the disk was full.

    Args:
        folder: for ``tensorboard --logdir``; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"events.out.tfevents.{time.time_ns()}"  # an older file may end within a record
        self._files: dict[str, RecordWriter] = {}

    def add(self, record: MetricRecord) -> None:
        """Write a record's values at its step."""
        values = [{"tag": name, "simple_value": value} for name, value in record.values.items()]
        self._append(f"{record.role}-{record.id}", record.time, record.step, values)

    def add_picture(self, name: str, png: bytes, step: int) -> None:
        """Write a picture."""
        width, height = struct.unpack(">II", png[_PNG_SIZE])
        image = {"height": height, "width": width, "colorspace": _RGBA, "encoded_image_string": png}
        self._append("pictures", time.time(), step, [{"tag": name, "image": image}])

    def _append(self, run: str, wall_time: float, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # both load torch
        from tensorboardX.record_writer import RecordWriter

        if run not in self._files:
            path = self._folder / run / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[run] = RecordWriter(str(path))
            self._files[run].write(Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
        self._files[run].write(Event(wall_time=wall_time, step=step, summary={"value": values}).SerializeToString())
        self._files[run].flush()
