"""`gptrec-rl pretrain`: stage 1, a student learns to write the lists of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from collections.abc import Callable, Mapping

    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.data import Split
    from gptrec_rl.learning.pretraining import Pretraining, Progress
    from gptrec_rl.models.recommender import Recommender

STATE = "state"


@click.command()
@data_option
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Gets the student and the log.")
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
    max_minutes: float | None,
    max_steps: int | None,
    seed: int | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    on_existing: str,
    threads: int | None,
    report: Path | None,
) -> None:
    """Stage 1: teach a GPTRec to write the lists of a Markov chain (or of the popularity model).

    RUN_DIR/student is the best policy so far by validation loss; Ctrl-C loses at most a minute, and
    '--on-existing resume' goes on.
    """
    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.config_files import read_config
    from gptrec_rl.fleet.run_folder import CONFIG

    options = {"max_minutes": max_minutes, "max_steps": max_steps, "seed": seed}
    stored = run_dir / CONFIG if on_existing == "resume" and (run_dir / CONFIG).exists() else None
    base = read_config(PretrainConfig, stored).model_dump() if stored else {}
    config = read_config(PretrainConfig, config_file, [*settings_of(options), *overrides], base)
    train_student(data, run_dir, config, on_existing, threads, report)


def train_student(
    data: Path, run_dir: Path, config: PretrainConfig, on_existing: str, threads: int | None, report: Path | None
) -> Path:
    """Run stage 1 with a progress bar; return the student's folder."""
    from gptrec_rl.fleet.run_folder import sole_user

    with sole_user(run_dir):
        return _train_student(data, run_dir, config, on_existing, threads, report)


def _train_student(
    data: Path, run_dir: Path, config: PretrainConfig, on_existing: str, threads: int | None, report: Path | None
) -> Path:
    import torch

    from gptrec_rl.checkpoint import STUDENT, save_policy
    from gptrec_rl.config_files import write_config
    from gptrec_rl.data import Interactions, Split
    from gptrec_rl.fleet.run_folder import CONFIG, claim_folder
    from gptrec_rl.learning.pretraining import Pretraining
    from gptrec_rl.models.gptrec import GPTRec
    from gptrec_rl.models.precision import best_device, keep_memory

    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    split = Split.leave_one_out(Interactions.load(data), config.split.validation_users, config.split.seed)
    split.require_room(config.model.slate_length)
    torch.manual_seed(config.seed)
    student = GPTRec.create(split.catalogue.n_items, config.model, config.dropout).to(best_device())
    saved = _saved_state(run_dir / STATE, split, config) if on_existing == "resume" else None
    claim_folder(run_dir, on_existing)  # type: ignore[arg-type]
    write_config(config, run_dir / CONFIG)
    training = Pretraining(student, _teacher(config.teacher, split), split, config)
    if saved is not None:
        training.resume(saved)

    def save() -> None:
        origin: dict[str, Any] = {
            "step": training.step,
            "catalogue_hash": split.catalogue.hash,
            "split_hash": split.hash,
            "config": config.model_dump(mode="json"),
        }
        save_policy(run_dir / STUDENT, training.best_files, **origin)
        save_policy(run_dir / STATE, training.to_files(), **origin)

    _run(training, run_dir, config, save)
    if report is not None:
        _report(report, training, config)
    click.echo(
        f"Student after {training.step:,} steps ({training.elapsed_s / 60:.1f} min): validation loss "
        f"{training.best_loss:.4f} nats an item; {run_dir / STUDENT}"
    )
    return run_dir / STUDENT


def _saved_state(folder: Path, split: Split, config: PretrainConfig) -> Mapping[str, bytes] | None:
    """Read what an earlier training saved, once it is known to fit; None when there is nothing."""
    from gptrec_rl.errors import InputError
    from gptrec_rl.transport.entry import MANIFEST, read_folder

    if not (folder / MANIFEST).exists():
        return None
    entry, files = read_folder(folder)
    if entry.split_hash != split.hash:
        raise InputError(f"{folder.parent} was trained on other data or another split; resume it with its own")
    for name, value in config.model.model_dump().items():
        before = entry.config["model"][name]
        if before != value:
            raise InputError(
                f"{folder.parent} has model.{name} = {before} and can't go on with {value}; leave it as it is, or "
                "train a new model in another --run-dir"
            )
    return files


def _run(training: Pretraining, run_dir: Path, config: PretrainConfig, save: Callable[[], None]) -> None:
    """Train, show progress, log it, and save what a resumed training needs every so often and at the end."""
    import json
    import time
    from dataclasses import asdict

    from gptrec_rl.reporting.progress import ProgressBar

    bar = ProgressBar("stage 1")
    saved_at = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal saved_at
        rate = f"{progress.examples_per_s:.0f} lists/s"
        text = f"step {progress.step:,}, loss {progress.loss:.3f}, best {progress.best_validation_loss:.4f}, {rate}"
        bar.show(progress.fraction or 0.0, text)
        if progress.validation_loss is not None:
            with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(asdict(progress)) + "\n")
        if time.monotonic() - saved_at > config.checkpoint_every_s:
            save()
            saved_at = time.monotonic()

    try:
        training.run(show)
    finally:
        bar.close()
        save()


def _teacher(name: str, split: Split) -> Recommender:
    from gptrec_rl.models.markov import MarkovChain
    from gptrec_rl.models.popularity import PopularityRecommender

    return MarkovChain(split) if name == "markov" else PopularityRecommender(split)


def _report(path: Path, training: Pretraining, config: PretrainConfig) -> None:
    from gptrec_rl.cli.options import typed_command
    from gptrec_rl.reporting.results import Section, write_section

    lists = training.step * config.batch_size
    note = (
        f"{training.step:,} steps of {config.batch_size} lists ({lists:,} lists of the teacher); validation loss "
        f"{training.best_loss:.4f} nats an item."
    )
    write_section(path, "Results", Section("Stage 1", typed_command(), training.elapsed_s, notes=[note]))
