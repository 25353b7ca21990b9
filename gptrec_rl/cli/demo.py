"""`gptrec-rl demo`: the whole path on built-in data, in minutes; what `make run` shows."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER, SEED, threads_option

GOALS = {"more diverse": "ndcg=1,ild=1", "less popular": "ndcg=1,pcount=6"}
MODEL = {"width": 64, "n_layers": 2, "history_length": 50}
"""Of the student, on built-in data."""
TUNING = {"ppo": {"policy_learning_rate": 1e-4}, "fleet": {"publish_every": 5}}
"""Settings of stage 2 where minutes have to do."""


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
    from gptrec_rl.cli.pretrain import train_student
    from gptrec_rl.cli.tune import run_fleet
    from gptrec_rl.config import ModelConfig, PretrainConfig, TuneConfig
    from gptrec_rl.data import Interactions, Split
    from gptrec_rl.data.sources.synthetic import generate
    from gptrec_rl.decoding import NextK
    from gptrec_rl.models.markov import MarkovChain
    from gptrec_rl.reporting.comparison import Compared, compare
    from gptrec_rl.store.trained_models import load_policy

    started = time.monotonic()
    data = run_dir / "data.npz"
    click.echo(f"Data: {users:,} users of a made-up world with {items:,} items.")
    generate(n_users=users, n_items=items, seed=seed).save(data)
    split = Split.leave_one_out(Interactions.load(data))
    models = [Compared("Markov chain", "teacher", MarkovChain(split))]

    click.echo("Stage 1: the student learns to write the lists of a Markov chain.")
    config = PretrainConfig(model=ModelConfig(**MODEL), max_minutes=pretrain_minutes, seed=seed)
    student = train_student(data, run_dir / "student", config, "overwrite", threads, None)
    models.append(Compared("student", "student", NextK(load_policy(student, split.catalogue))))

    for name, goal in GOALS.items():
        click.echo(f"Stage 2: a fleet of processes tunes the student for {goal} ({name}).")
        tuning = TuneConfig.model_validate(
            {**TUNING, "data": str(data.resolve()), "goal": goal, "max_minutes": tune_minutes, "seed": seed}
        )
        folder = run_fleet(run_dir / name.replace(" ", "-"), tuning, student, "overwrite")
        models.append(Compared(f"tuned: {name}", "tuned", NextK(load_policy(folder, split.catalogue))))

    picture = run_dir / "trade-off.png"
    table = compare(models, split, picture, "Built-in data, all test users")
    click.echo(f"\n{table}\n")
    click.echo(f"Arrows point to better. All {users:,} test users; {(time.monotonic() - started) / 60:.1f} minutes.")
    click.echo(f"Picture: {picture}")
