from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import START, MetricRecord


def record(role: str, step: int, **values: float) -> MetricRecord:
    return MetricRecord(role=role, id=0, token=1, step=step, time=12.5, values=values)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_all_records_are_metrics_and_the_validators_scores_are_validations(tmp_path: Path) -> None:
    scored, busy = record("validator", 2, **{"val/ndcg@10": 0.25}), record("validator", 3, **{"wait/share": 0.5})
    RunRecords(tmp_path).append([record("optimiser", 1, **{"val/ndcg@10": 0.5}), scored, busy], "7-0")
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert steps(tmp_path / "validations.jsonl") == [2]
    assert json.loads((tmp_path / "validations.jsonl").read_text()) == {
        "role": "validator",
        "id": 0,
        "token": 1,
        "step": 2,
        "time": 12.5,
        "values": {"val/ndcg@10": 0.25},
    }


def test_the_place_in_the_stream_is_kept(tmp_path: Path) -> None:
    first = RunRecords(tmp_path)
    assert first.cursor == START
    first.append([record("optimiser", 1)], "7-0")
    assert first.cursor == RunRecords(tmp_path).cursor == "7-0"


def test_a_batch_that_was_cut_short_is_taken_back(tmp_path: Path) -> None:
    RunRecords(tmp_path).append([record("optimiser", 1)], "7-0")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"role": "optimiser", "id": 0, "tok')
    again = RunRecords(tmp_path)
    again.append([record("optimiser", 2)], "8-0")
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


def test_what_was_cut_short_in_the_first_batch_is_taken_back(tmp_path: Path) -> None:
    RunRecords(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"role": "optimiser", "id": 0, "tok')
    RunRecords(tmp_path).append([record("optimiser", 1)], "7-0")
    assert steps(tmp_path / "metrics.jsonl") == [1]


def test_records_of_another_writer_are_added_to(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    RunRecords(tmp_path).append([record("optimiser", 2)], "8-0")
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        '{"cursor": "7-0"}',
        '{"cursor": "last", "sizes": {"metrics.jsonl": 0, "validations.jsonl": 0}}',
        '{"cursor": "7-0", "sizes": {"metrics.jsonl": -1, "validations.jsonl": 0}}',
        '{"cursor": "7-0", "sizes": {"metrics.jsonl": Infinity, "validations.jsonl": 0}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_place_is_named_with_its_remedy(tmp_path: Path, state: str) -> None:
    (tmp_path / "metrics.cursor").write_text(state)
    with pytest.raises(InputError, match=r"metrics\.cursor is damaged .*; remove it"):
        RunRecords(tmp_path)


def test_a_place_names_no_other_file_and_makes_none_longer(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("goal = 1")
    sizes = {"metrics.jsonl": 2**40, "validations.jsonl": 0, "config.toml": 0}
    (tmp_path / "metrics.cursor").write_text(json.dumps({"cursor": "7-0", "sizes": sizes}))
    RunRecords(tmp_path)
    assert (tmp_path / "metrics.jsonl").stat().st_size == 0
    assert (tmp_path / "config.toml").read_text() == "goal = 1"


def test_records_that_found_no_room_are_written_once_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RunRecords(tmp_path)
    records.append([record("optimiser", 1, **{"reward/mean": 0.5})], "7-0")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                records.append([record("optimiser", 2, **{"reward/mean": 0.5})], "8-0")
    assert records.cursor == "7-0"
    assert steps(tmp_path / "metrics.jsonl") == [1]
    records.append([record("optimiser", 2, **{"reward/mean": 0.5})], "8-0")
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]
    event_files = list(tmp_path.glob("tensorboard/optimiser-0/events*"))
    assert len(event_files) == 3  # none is added to that may end in half a record


@pytest.mark.parametrize("error", [ValueError("no such font"), MemoryError(), OSError(errno.EACCES, "denied")])
def test_what_cannot_be_drawn_loses_no_record_and_is_said_once(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("gptrec_rl.telemetry.pictures.PathPicture.refresh", fails)
    monkeypatch.setattr("gptrec_rl.telemetry.event_files.EventFiles.add", fails)
    records = RunRecords(tmp_path)
    for step in (1, 2):
        records.append([record("validator", step, **{"val/ndcg@10": 0.5})], f"{step}-0")
    assert steps(tmp_path / "metrics.jsonl") == steps(tmp_path / "validations.jsonl") == [1, 2]
    assert RunRecords(tmp_path).cursor == "2-0"
    assert len(caplog.records) == 2  # one of the picture, one of the event files
    assert f"the validator's path can't be made ({type(error).__name__}" in caplog.text
