from __future__ import annotations

import json
import math
import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from gptrec_rl.config import PretrainConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.errors import InputError
from gptrec_rl.store.manifest import write_folder
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.training_doctor import TrainingEvidence, examine_training

SAVED = 1_700_000_000.0


def save(folder: Path, step: int = 7, best_loss: float = 2.5) -> None:
    counters = json.dumps({"step": step, "best_loss": best_loss}).encode()
    write_folder(
        folder / "state", {"counters.json": counters}, step=step, catalogue_hash="c", split_hash="s", config={}
    )
    os.utime(folder / "state/manifest.json", (SAVED, SAVED))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a training that goes on, at step 7."""
    write_config(PretrainConfig(), tmp_path / "config.toml")
    save(tmp_path)
    return tmp_path


def findings(folder: Path, later_s: float = 10.0) -> list[str]:
    return [str(finding) for finding in examine_training(TrainingEvidence.gather(folder, SAVED + later_s))]


def end(folder: Path, error: BaseException | None = None) -> None:
    with suppress(type(error)) if error else nullcontext(), end_recorded(folder):
        if error:
            raise error


def test_one_that_goes_on_and_one_that_is_finished_are_well(folder: Path) -> None:
    assert findings(folder) == []
    described = "a training (`gptrec-rl pretrain`), {}, at step 7, best validation loss 2.5000"
    assert str(TrainingEvidence.gather(folder, SAVED)) == described.format("goes on")
    end(folder)
    assert findings(folder, later_s=1e6) == []
    assert str(TrainingEvidence.gather(folder, SAVED)) == described.format("finished")


def test_an_error_is_named(folder: Path) -> None:
    end(folder, InputError("the training loss is nan at step 8"))
    (found,) = findings(folder)
    assert found.startswith("The training ended with an error: the training loss is nan at step 8. Mend that.")


def test_one_that_was_stopped_can_go_on(folder: Path) -> None:
    end(folder, KeyboardInterrupt())
    (found,) = findings(folder)
    assert found.startswith("The training was stopped by SIGINT")
    assert "--on-existing resume" in found


def test_one_that_was_killed_has_no_end(folder: Path) -> None:
    assert findings(folder, later_s=599.0) == []
    (found,) = findings(folder, later_s=7200.0)
    assert found.startswith("The training has saved nothing for 2 h 0 min, and did not come to an end")


def test_one_without_a_validation_has_no_model(folder: Path) -> None:
    save(folder, best_loss=math.inf)
    end(folder)
    (found,) = findings(folder)
    assert found.startswith("The training ended without a validation")


def test_a_damaged_state_is_named(folder: Path) -> None:
    (folder / "state/counters.json").write_text("{}")
    (found,) = findings(folder)
    assert found.startswith("The saved state is damaged: ")


def test_a_loss_that_is_no_number_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "state")
    (folder / "metrics.jsonl").write_text('{"validation_loss": 1.0}\n{"validation_loss": NaN}\n')
    evidence = TrainingEvidence.gather(folder, (folder / "config.toml").stat().st_mtime)
    (found,) = map(str, examine_training(evidence))
    assert found.startswith("A validation loss is nan")
