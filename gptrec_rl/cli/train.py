"""`gptrec-rl train`: the models that the paper compares GPTRec with, which are also its teachers."""

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
from gptrec_rl.kinds import trained_kinds

if TYPE_CHECKING:
    from gptrec_rl.config_files import Change
    from gptrec_rl.runs.run_folder import OnExisting


@click.command()
@click.argument("model", type=click.Choice(list(trained_kinds())))
@data_option
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Gets the model and the log.")
@click.option("--max-minutes", type=float, help="Time budget; the learning rate falls to 0 over it.")
@click.option("--max-steps", type=int, help="Step budget; likewise.")
@click.option("--seed", type=SEED, help="Of the weights and the examples.")
@config_options
@on_existing_option
@threads_option
@report_option
def train(
    model: str,
    data: Path,
    run_dir: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    on_existing: OnExisting,
    threads: int | None,
    report: Path | None,
    **options: float | None,
) -> None:
    """Train a model to compare with, or to teach a student.

    RUN_DIR/model is the best one so far on the validation users; Ctrl-C loses at most a minute, and
    '--on-existing resume' goes on. SASRec has three losses: '--set loss=softmax' makes the strongest teacher.
    """
    from gptrec_rl.runs.train import train as train_model
    from gptrec_rl.runs.training import read_training_config

    settings: list[Change] = [*settings_of(options), *overrides]
    config = read_training_config(trained_kinds()[model].config, run_dir, on_existing, config_file, settings)
    train_model(data, run_dir, config, on_existing=on_existing, threads=threads, report=report, command=typed_command())
