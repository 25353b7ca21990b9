"""`gptrec-rl pretrain`: stage 1, a student learns to write the lists of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gptrec_rl.cli.options import (
    SEED,
    config_options,
    data_option,
    on_existing_option,
    report_option,
    settings_of,
    threads_option,
)

if TYPE_CHECKING:
    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.config_files import Change
    from gptrec_rl.data import Split
    from gptrec_rl.learning.pretraining import Pretraining
    from gptrec_rl.models.gptrec import GPTRec
    from gptrec_rl.recommender import ScoringRecommender, Strategy


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
    on_existing: str,
    threads: int | None,
    report: Path | None,
    **options: str | float | None,
) -> None:
    """Stage 1: teach a GPTRec to write the lists of a teacher.

    RUN_DIR/student is the best policy so far by validation loss; Ctrl-C loses at most a minute, and
    '--on-existing resume' goes on.
    """
    from gptrec_rl.config import PretrainConfig
    from gptrec_rl.runs.training import read_training_config, require_budget

    settings: list[Change] = [*settings_of(options), *overrides]
    config = read_training_config(PretrainConfig, run_dir, on_existing, config_file, settings)
    require_budget(config)
    train_student(data, run_dir, config, on_existing, threads, report)


def train_student(
    data: Path,
    run_dir: Path,
    config: PretrainConfig,
    on_existing: str,
    threads: int | None,
    report: Path | None,
) -> Path:
    """Run stage 1 with a progress bar; return the student's folder."""
    from gptrec_rl.runs.training import run_training
    from gptrec_rl.store.trained_models import STUDENT

    return run_training(
        data,
        run_dir,
        config,
        lambda split, begins: _stage_1(split, config, begins),
        model_folder=STUDENT,
        title="Stage 1",
        on_existing=on_existing,
        threads=threads,
        report=report,
        built_on=lambda begins: _built_on(config, begins),
    )


def _built_on(config: PretrainConfig, begins: bool) -> dict[str, str]:
    """Return the identities of the models that a student learns from: the one to start from is needed once.

    Raises:
        InputError: one of them is not there.
    """
    from gptrec_rl.errors import InputError
    from gptrec_rl.runs.models import ModelChoice

    places = {"teacher": config.teacher, **({"start": config.start} if begins and config.start else {})}
    try:
        return {name: ModelChoice.parse(place).identity for name, place in places.items()}
    except InputError as error:
        raise InputError(f"a student needs its {' and its '.join(places)}: {error}") from None


def _stage_1(split: Split, config: PretrainConfig, begins: bool) -> Pretraining:
    from gptrec_rl.learning.pretraining import Pretraining
    from gptrec_rl.models.gptrec import GPTRec
    from gptrec_rl.models.precision import best_device
    from gptrec_rl.models.reranker import Reranked
    from gptrec_rl.runs.models import ModelChoice

    split.require_room(config.model.slate_length)
    student = GPTRec.create(split.catalogue.n_items, config.model, config.dropout).to(best_device())
    start = config.start if begins else None  # a training that goes on has its own weights
    if start is not None:
        student.load_state_dict(_started_from(Path(start), split, student).state_dict())
    for place in (config.teacher, start):
        if place is not None and not ModelChoice.parse(place).trained_on(split):
            click.echo(
                f"note: {place} was trained on another split, perhaps on these validation users, who choose the best "
                "student; give the data, split.validation_users and split.seed of its training if that is not meant",
                err=True,
            )
    strategy: Strategy | None = "top-k" if config.rerank else None
    teacher = ModelChoice.parse(config.teacher).open(split, strategy, config.precision)
    if config.rerank is not None:
        teacher = Reranked(cast("ScoringRecommender", teacher), config.rerank, split)
    return Pretraining(student, teacher, split, config)


def _started_from(folder: Path, split: Split, student: GPTRec) -> GPTRec:
    """Load the student to go on from.

    Raises:
        InputError: there is none, or it has another size.
    """
    from gptrec_rl.errors import InputError
    from gptrec_rl.store.trained_models import load_policy

    start = load_policy(folder, split.catalogue)
    sizes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    other = [name for name, tensor in start.state_dict().items() if sizes.get(name) != tensor.shape]
    if other or len(sizes) != len(start.state_dict()):
        raise InputError(
            f"{folder} can't be started from: its size is not that of the settings' model (its width is "
            f"{start.transformer.config.n_embd}, its history_length {start.history_length}, its slate_length "
            f"{start.slate_length}); give the same model settings"
        )
    return start
