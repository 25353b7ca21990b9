"""`gptrec-rl demo`: the whole path on built-in data, in minutes; what `make run` shows."""

from __future__ import annotations

from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER, SEED, threads_option


@click.command()
@click.option("--run-dir", type=FOLDER, default=Path("runs/demo"), show_default=True, help="Gets all that is made.")
@click.option("--users", default=2000, show_default=True, type=click.IntRange(4, 10**7), help="Users of the world.")
@click.option("--items", default=400, show_default=True, type=click.IntRange(160, 20_000), help="Its items.")
@click.option("--pretrain-minutes", default=1.0, show_default=True, help="Time for stage 1.")
@click.option("--tune-minutes", default=1.0, show_default=True, help="Time for each of the two fleets.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the world and of all training.")
@threads_option
def demo(
    run_dir: Path,
    users: int,
    items: int,
    pretrain_minutes: float,
    tune_minutes: float,
    seed: int,
    threads: int | None,
) -> None:
    """See the whole path on built-in data: a teacher, a student, and two fleets that align it with a goal each.

    Ends with a table and a picture. An earlier demo in RUN_DIR is replaced.
    """
    from gptrec_rl.runs.demo import demo as show_all

    show_all(
        run_dir,
        users=users,
        items=items,
        pretrain_minutes=pretrain_minutes,
        tune_minutes=tune_minutes,
        seed=seed,
        threads=threads,
    )
