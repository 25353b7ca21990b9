"""`gptrec-rl pretrain`: stage 1, a student learns to write the lists of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptrec_rl.cli.options import (
    config_options,
    data_option,
    on_existing_option,
    report_option,
    settings_of,
    threads_option,
)

if TYPE_CHECKING:
    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.data import Split
    from gptrec_rl.learning.pretraining import Pretraining
    from gptrec_rl.models.recommender import Recommender


@click.command()
@data_option
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Gets the student and the log.")
@click.option("--teacher", help="markov, popularity, or the folder of a trained model.  [default: markov]")
@click.option("--max-minutes", type=float, help="Time budget; the learning rate falls to 0 over it.")
@click.option("--max-steps", type=int, help="Step budget; likewise.")
@click.option("--seed", type=int, help="Of the weights and the examples.")
@config_options
@on_existing_option
@threads_option
@report_option
def pretrain(
    data: Path,
    run_dir: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    on_existing: str,
    threads: int | None,
    report: Path | None,
    **options: str | float | None,
) -> None:
    """Stage 1: teach a GPTRec to write the lists of a teacher.

    RUN_DIR/student is the best policy so far by validation loss; Ctrl-C loses at most a minute, and
    '--on-existing resume' goes on.
    """
    from gptrec_rl.cli.training import read_training_config
    from gptrec_rl.config import PretrainConfig

    settings = [*settings_of(options), *overrides]
    config = read_training_config(PretrainConfig, run_dir, on_existing, config_file, settings)
    train_student(data, run_dir, config, on_existing, threads, report)


def train_student(
    data: Path,
    run_dir: Path,
    config: PretrainConfig,
    on_existing: str,
    threads: int | None,
    report: Path | None,
    teacher: Recommender | None = None,
) -> Path:
    """Run stage 1 with a progress bar; return the student's folder.

    Args:
        data: the data file.
        run_dir: gets the student, the log and the state to resume from.
        config: settings.
        on_existing: fail, resume or overwrite.
        threads: numerical threads; None: one a core.
        report: Markdown document to write a section into.
        teacher: to learn from; None: the one that the settings name.
    """
    from gptrec_rl.checkpoint import STUDENT
    from gptrec_rl.cli.training import run_training

    return run_training(
        data,
        run_dir,
        config,
        lambda split: _stage_1(split, config, teacher),
        model_folder=STUDENT,
        title="Stage 1",
        on_existing=on_existing,
        threads=threads,
        report=report,
    )


def _stage_1(split: Split, config: PretrainConfig, teacher: Recommender | None) -> Pretraining:
    from gptrec_rl.cli.models import ModelChoice
    from gptrec_rl.learning.pretraining import Pretraining
    from gptrec_rl.models.gptrec import GPTRec
    from gptrec_rl.models.precision import best_device

    split.require_room(config.model.slate_length)
    student = GPTRec.create(split.catalogue.n_items, config.model, config.dropout).to(best_device())
    if teacher is None:
        teacher = ModelChoice.parse(config.teacher).open(split, "top-k", config.precision)
    return Pretraining(student, teacher, split, config)
