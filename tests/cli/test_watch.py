from __future__ import annotations

import json
import threading
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

STARTED = 1_700_000_000.0


def watch(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["watch", *map(str, arguments)])


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the folder of a run that has used half of its budget."""
    write_config(TuneConfig(goal="ndcg=1,ild=0.5", steps=40), tmp_path / "config.toml")
    append(tmp_path, "optimiser", 20, {"reward/mean": 0.25, "run/progress": 0.5})
    append(tmp_path, "validator", 20, {"val/version": 1.0, "val/reward": 0.3, "val/is_best": 1.0, "val/ndcg@10": 0.15})
    return tmp_path


def append(run_dir: Path, role: str, step: int, values: dict[str, float]) -> None:
    record = MetricRecord(role, 0, 1, step, STARTED + step, values)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def finish(run_dir: Path) -> None:
    append(run_dir, "optimiser", 40, {"reward/mean": 0.35, "run/progress": 1.0})
    append(run_dir, "validator", 40, {"val/version": 2.0, "val/reward": 0.4, "val/is_best": 1.0, "val/ndcg@10": 0.16})


def test_once_prints_the_state_of_a_run_that_goes_on(run_dir: Path) -> None:
    result = watch(run_dir, "--once")
    assert result.exit_code == 0
    assert "goal ndcg=1,ild=0.5" in result.stdout
    assert "step 20, 50% of the budget" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["1", "20", "0.0", "0.3000", "0.1500", "best"]


def test_a_finished_run_is_printed_without_being_asked(run_dir: Path) -> None:
    finish(run_dir)
    result = watch(run_dir)
    assert "step 40, 100% of the budget, 20 s, finished" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["2", "40", "0.3", "0.4000", "0.1600", "best"]


def test_a_run_is_followed_until_it_is_finished(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptrec_rl.cli.watch.REFRESH_S", 0.01)
    seen: list[Result] = []
    watching = threading.Thread(target=lambda: seen.append(watch(run_dir)))
    watching.start()
    time.sleep(0.1)
    assert watching.is_alive()
    finish(run_dir)
    watching.join(timeout=300)
    assert "finished" in seen[0].stdout


def test_a_run_that_an_error_ended_is_printed_with_it(run_dir: Path) -> None:
    with pytest.raises(InputError), end_recorded(run_dir):
        raise InputError("reward 'mine:odd' failed")
    result = watch(run_dir)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1] == "failed: reward 'mine:odd' failed"


def test_a_training_is_no_run_to_follow(tmp_path: Path) -> None:
    write_config(PretrainConfig(), tmp_path / "config.toml")
    result = watch(tmp_path)
    assert result.exit_code == 2
    assert "is a training (`gptrec-rl pretrain`)" in " ".join(result.stderr.split())


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    write_config(TuneConfig(), tmp_path / "config.toml")
    assert "nothing recorded yet" in watch(tmp_path, "--once").stdout


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    result = watch(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "is not a run folder: it has no config.toml" in " ".join(result.stderr.split())
