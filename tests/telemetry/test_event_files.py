from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from gptrec_rl.telemetry.event_files import EventFiles
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MetricRecord

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 640, 300) + b"the rest" * 100


def record(role: str, step: int, values: dict[str, float], index: int = 0) -> MetricRecord:
    return MetricRecord(role, index, 1, step, 12.5, values)


def framed(file: Path) -> list[bytes]:
    """Return the records of an event file: a length, its checksum, the record, its checksum."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        found.append(data[12 : 12 + length])
        data = data[12 + length + 4 :]
    return found


def test_each_process_has_a_folder_and_its_file_grows(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    files.add(record("optimiser", 1, {"reward/mean": 0.5}))
    files.add(record("generator", 1, {"wait/share": 0.5}, index=3))
    files.add(record("optimiser", 2, {"reward/mean": 0.25}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generator-3", "optimiser-0"]
    (file,) = (tmp_path / "optimiser-0").iterdir()
    version, *events = framed(file)
    assert b"brain.Event:2" in version
    assert len(events) == 2


def test_values_beyond_a_32_bit_float_are_written_as_infinite(tmp_path: Path) -> None:
    EventFiles(tmp_path).add(record("optimiser", 1, {"loss/value": 1e300}))
    (file,) = (tmp_path / "optimiser-0").iterdir()
    assert struct.pack("<f", float("inf")) in framed(file)[1]


def test_what_a_killed_process_left_half_written_is_not_added_to(tmp_path: Path) -> None:
    EventFiles(tmp_path).add(record("optimiser", 1, {"reward/mean": 0.5}))
    EventFiles(tmp_path).add(record("optimiser", 2, {"reward/mean": 0.5}))
    assert [len(framed(file)) for file in (tmp_path / "optimiser-0").iterdir()] == [2, 2]


def test_the_records_of_a_run_are_written_for_tensorboard_too(tmp_path: Path) -> None:
    RunRecords(tmp_path).append([record("optimiser", 1, {"reward/mean": 0.5})], "7-0")
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["optimiser-0"]


def test_values_and_pictures_are_read_back(tmp_path: Path) -> None:
    files = EventFiles(tmp_path)
    values = {"reward/mean": 0.5, "val/ndcg@10": 0.25, "cache/generated": 12_345.0}
    files.add(record("optimiser", 300, values))
    files.add_picture("validator/path", PNG, step=70_000)
    (curve,) = (tmp_path / "optimiser-0").iterdir()
    first, event = (Event.FromString(data) for data in framed(curve))
    assert first.file_version == "brain.Event:2"
    assert (event.step, event.wall_time) == (300, 12.5)
    assert {value.tag: value.simple_value for value in event.summary.value} == values
    (pictures,) = (tmp_path / "pictures").iterdir()
    drawn = Event.FromString(framed(pictures)[1])
    (shown,) = drawn.summary.value
    assert (drawn.step, shown.tag) == (70_000, "validator/path")
    assert (shown.image.width, shown.image.height) == (640, 300)
    assert shown.image.encoded_image_string == PNG
