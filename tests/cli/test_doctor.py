from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.config import PretrainConfig, TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.errors import InputError
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.stream import MetricRecord


def doctor(run_dir: Path) -> Result:
    return CliRunner().invoke(main, ["doctor", str(run_dir)])


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the folder of a run that has just begun."""
    write_config(TuneConfig(steps=40), tmp_path / "config.toml")
    record = MetricRecord("optimiser", 0, 1, 0, time.time(), {"run/progress": 0.0, "wait/share": 0.25})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(asdict(record)) + "\n")
    return tmp_path


def test_a_healthy_run_ends_with_code_0(run_dir: Path) -> None:
    result = doctor(run_dir)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{run_dir}: nothing wrong at step 0, 0% done\n"


@pytest.mark.parametrize("command", ["doctor", "watch"])
def test_a_reward_of_ones_own_is_not_imported_to_look_at_a_run(command: str, run_dir: Path) -> None:
    write_config(TuneConfig(goal="no_such_module:reward=1", steps=40), run_dir / "config.toml")
    once = ["--once"] if command == "watch" else []
    assert CliRunner().invoke(main, [command, str(run_dir), *once]).exit_code == 0


def test_each_finding_is_a_line_and_ends_with_code_1(run_dir: Path) -> None:
    values = {"wait/share": 0.75, "ppo/skipped_steps": 2.0}
    record = MetricRecord("optimiser", 0, 1, 0, time.time(), values)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.writelines(12 * [json.dumps(asdict(record)) + "\n"])
    result = doctor(run_dir)
    assert result.exit_code == 1
    waits, skips = result.stdout.splitlines()
    assert waits.startswith("- The optimiser waits 75% of its time")
    assert skips.startswith("- 2 passes were skipped")


def test_a_training_is_examined_as_one(tmp_path: Path) -> None:
    write_config(PretrainConfig(), tmp_path / "config.toml")
    result = doctor(tmp_path)
    assert result.exit_code == 0, result.output
    assert "nothing wrong; a training (`gptrec-rl pretrain`), goes on, at step 0" in result.stdout
    with pytest.raises(InputError), end_recorded(tmp_path):
        raise InputError("the loss is nan")
    result = doctor(tmp_path)
    assert result.exit_code == 1
    assert result.stdout.startswith("- The training ended with an error: the loss is nan.")


def test_a_folder_of_something_else_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "data.npz").touch()
    for path, what in ((tmp_path / "nowhere", "isn't there"), (tmp_path / "data.npz", "is a data file")):
        result = doctor(path)
        assert result.exit_code == 2
        assert what in result.output
