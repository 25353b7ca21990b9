from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.transport.metrics import MetricRecord


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


def test_a_folder_of_something_else_is_bad_input(tmp_path: Path) -> None:
    assert doctor(tmp_path / "nowhere").exit_code == 2
