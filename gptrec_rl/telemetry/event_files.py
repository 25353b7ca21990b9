"""A run's metrics as TensorBoard event files: one of its "runs" for each process of the fleet, and pictures.

The format is two small ones that have not changed since 2015: records framed by checksums, each a protocol buffer. The
libraries that write it load torch and write from a thread whose queue blocks for ever once the disk was full.
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
"""

from __future__ import annotations

import struct
import time
from ctypes import c_float
from pathlib import Path

from gptrec_rl.telemetry.stream import MetricRecord

FOLDER = "tensorboard"

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types
_RGBA = 4
_PNG_SIZE = slice(16, 24)  # width and height in a PNG's header


class EventFiles:
    """Writes below one folder; what an earlier process wrote there stays.

    Args:
        folder: for ``tensorboard --logdir``; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"events.out.tfevents.{time.time_ns()}"  # an older file may end within a record

    def add(self, record: MetricRecord) -> None:
        """Write a record's values at its step."""
        values = b"".join(_field(1, _scalar(name, value)) for name, value in record.values.items())
        self._append(f"{record.role}-{record.id}", _event(record.time, record.step, _field(5, values)))

    def add_picture(self, name: str, png: bytes, step: int) -> None:
        """Write a picture."""
        width, height = struct.unpack(">II", png[_PNG_SIZE])
        image = _field(1, height) + _field(2, width) + _field(3, _RGBA) + _field(4, png)
        value = _field(1, name.encode()) + _field(4, image)
        self._append("pictures", _event(time.time(), step, _field(5, _field(1, value))))

    def _append(self, run: str, event: bytes) -> None:
        path = self._folder / run / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as out:
            if out.tell() == 0:
                out.write(_framed(_event(time.time(), 0, _field(3, b"brain.Event:2"))))
            out.write(_framed(event))


def _event(wall_time: float, step: int, what: bytes) -> bytes:
    return _field(1, wall_time) + _field(2, step) + what


def _scalar(name: str, value: float) -> bytes:
    return _field(1, name.encode()) + bytes([2 << 3 | _FLOAT]) + bytes(c_float(value))


def _field(number: int, content: bytes | int | float) -> bytes:
    """Encode a field of a protocol buffer: bytes with their length, a count, or a double."""
    if isinstance(content, bytes):
        return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content
    if isinstance(content, int):
        return bytes([number << 3 | _VARINT]) + _varint(content)
    return bytes([number << 3 | _DOUBLE]) + struct.pack("<d", content)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _framed(data: bytes) -> bytes:
    """Return a record as TensorBoard reads it: its length and its bytes, each followed by a checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


def _masked_crc(data: bytes) -> int:
    crc = crc32c(data)
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the Castagnoli CRC (RFC 3720).

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of(byte) for byte in range(256)]
