"""The whole path on built-in data, in minutes; what `make run` shows."""

from __future__ import annotations

import time
from pathlib import Path

from gptrec_rl.config import ModelConfig, PretrainConfig, TuneConfig
from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.decoding import NextK
from gptrec_rl.models.markov import MarkovChain
from gptrec_rl.reporting.comparison import Compared, compare
from gptrec_rl.runs.pretrain import pretrain
from gptrec_rl.runs.tune import tune
from gptrec_rl.store.trained_models import load_policy

GOALS = {"more diverse": "ndcg=1,ild=1", "less popular": "ndcg=1,pcount=6"}
MODEL = {"width": 64, "n_layers": 2, "history_length": 50}
"""Of the student, on built-in data."""
TUNING = {"ppo": {"policy_learning_rate": 1e-4}, "fleet": {"publish_every": 5}}
"""Settings of stage 2 where minutes have to do."""


def demo(
    run_dir: Path,
    *,
    users: int = 2000,
    items: int = 400,
    pretrain_minutes: float = 1.0,
    tune_minutes: float = 1.0,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Make a teacher, a student, and two fleets that align it with a goal each; print a table and draw a picture.

    Args:
        run_dir: gets all that is made; an earlier demo in it is replaced.
        users: of the made-up world.
        items: of it.
        pretrain_minutes: time for stage 1.
        tune_minutes: time for each of the two fleets.
        seed: of the world and of all training.
        threads: numerical threads of this process; None: one a core.
    """
    started = time.monotonic()
    data = run_dir / "data.npz"
    print(f"Data: {users:,} users of a made-up world with {items:,} items.")
    generate(n_users=users, n_items=items, seed=seed).save(data)
    split = Split.of(Interactions.load(data))
    models = [Compared("Markov chain", "teacher", MarkovChain(split))]

    print("Stage 1: the student learns to write the lists of a Markov chain.")
    config = PretrainConfig(model=ModelConfig(**MODEL), max_minutes=pretrain_minutes, seed=seed)
    student = pretrain(data, run_dir / "student", config, on_existing="overwrite", threads=threads)
    models.append(Compared("student", "student", NextK(load_policy(student, split.catalogue))))

    for name, goal in GOALS.items():
        print(f"Stage 2: a fleet of processes tunes the student for {goal} ({name}).")
        tuning = TuneConfig.model_validate(
            {**TUNING, "data": str(data.resolve()), "goal": goal, "max_minutes": tune_minutes, "seed": seed}
        )
        folder = tune(run_dir / name.replace(" ", "-"), tuning, student, on_existing="overwrite")
        models.append(Compared(f"tuned: {name}", "tuned", NextK(load_policy(folder, split.catalogue))))

    picture = run_dir / "trade-off.png"
    table, is_drawn = compare(models, split, picture, "Built-in data, all test users")
    print(f"\n{table}\n")
    print(f"Arrows point to better. All {users:,} test users; {(time.monotonic() - started) / 60:.1f} minutes.")
    if is_drawn:
        print(f"Picture: {picture}")
