from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.telemetry.ending import END, end_recorded, read_end


def how(folder: Path) -> tuple[str, str]:
    end = read_end(folder)
    assert end is not None
    return end.how, end.message


def test_while_it_goes_on_there_is_no_end(tmp_path: Path) -> None:
    with end_recorded(tmp_path):
        pass
    assert how(tmp_path) == ("finished", "")
    with end_recorded(tmp_path):
        assert read_end(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("reward x failed"), ("failed", "reward x failed")),
        (ZeroDivisionError(), ("failed", "ZeroDivisionError")),
        (KeyboardInterrupt(), ("stopped", "SIGINT")),
        (SystemExit(143), ("stopped", "SIGTERM")),
        (SystemExit(130), ("stopped", "SIGINT")),
        (SystemExit(0), ("finished", "")),
        (SystemExit(2), ("failed", "2")),
    ],
)
def test_an_error_and_a_signal_are_told_apart(error: BaseException, expected: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(type(error)), end_recorded(tmp_path):
        raise error
    assert how(tmp_path) == expected


def test_an_error_that_quotes_a_log_is_shown_by_its_first_and_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(InputError), end_recorded(tmp_path):
        raise InputError("generator-0 can't work:\n12:00 started\n\n12:01 reward failed\n")
    assert str(read_end(tmp_path)) == "failed: generator-0 can't work: ... 12:01 reward failed"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"how": "x", "message": "", "time": 0.0}',
        '{"how": ["x"], "message": "", "time": 0.0}',
        '{"how": "failed", "message": 1, "time": 0.0}',
        '{"how": "failed", "message": "", "time": Infinity}',
        '{"how": "failed", "message": "", "time": 1}',
    ],
)
def test_a_damaged_record_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / END).write_text(content)
    assert read_end(tmp_path) is None


def test_a_long_message_keeps_its_end(tmp_path: Path) -> None:
    with pytest.raises(InputError), end_recorded(tmp_path):
        raise InputError("x" * 100_000 + "cause")
    assert how(tmp_path)[1].endswith("cause")
    assert len(json.loads((tmp_path / END).read_text())["message"]) < 10_000
