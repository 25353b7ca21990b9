"""Training of the models that the paper compares GPTRec with, which are also its teachers."""

from __future__ import annotations

from pathlib import Path

from gptrec_rl.config import TrainingConfig
from gptrec_rl.kinds import kind_of, training_of
from gptrec_rl.runs.run_folder import OnExisting
from gptrec_rl.runs.training import run_training
from gptrec_rl.store.trained_models import MODEL


def train(
    data: Path,
    run_dir: Path,
    config: TrainingConfig,
    *,
    on_existing: OnExisting = "fail",
    threads: int | None = None,
    report: Path | None = None,
    command: str = "",
) -> Path:
    """Train the kind of model that a configuration is of (`gptrec_rl.kinds`) with a progress bar.

    Arguments, result and errors are those of `run_training`.
    """
    return run_training(
        data,
        run_dir,
        config,
        lambda split, _: training_of(config, split),
        model_folder=MODEL,
        title=kind_of(config),
        on_existing=on_existing,
        threads=threads,
        report=report,
        command=command,
    )
