"""`gptrec-rl pretrain`: stage 1, a student learns to write the lists of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptrec_rl.cli.options import (
    SEED,
    config_options,
    data_option,
    on_existing_option,
    report_option,
    settings_of,
    threads_option,
    typed_command,
)

if TYPE_CHECKING:
    from gptrec_rl.config_files import Change
    from gptrec_rl.runs.run_folder import OnExisting


@click.command()
@data_option
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Gets the student and the log.")
@click.option("--teacher", help="markov, popularity, or the folder of a trained model.  [default: markov]")
@click.option("--start", help="Folder of a student to go on from.")
@click.option("--max-minutes", type=float, help="Time budget; the learning rate falls to 0 over it.")
@click.option("--max-steps", type=int, help="Step budget; likewise.")
@click.option("--seed", type=SEED, help="Of the weights and the examples.")
@config_options
@on_existing_option
@threads_option
@report_option
def pretrain(
    data: Path,
    run_dir: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    on_existing: OnExisting,
    threads: int | None,
    report: Path | None,
    **options: str | float | None,
) -> None:
    """Stage 1: teach a GPTRec to write the lists of a teacher.

    RUN_DIR/student is the best policy so far by validation loss; Ctrl-C loses at most a minute, and
    '--on-existing resume' goes on.
    """
    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.runs.pretrain import pretrain as train_student
    from gptrec_rl.runs.training import read_training_config

    settings: list[Change] = [*settings_of(options), *overrides]
    config = read_training_config(PretrainConfig, run_dir, on_existing, config_file, settings)
    train_student(
        data, run_dir, config, on_existing=on_existing, threads=threads, report=report, command=typed_command()
    )
