"""Stage 1: a student learns to write the lists of a teacher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from gptrec_rl.config import PretrainConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import InputError
from gptrec_rl.learning.pretraining import Pretraining
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import best_device
from gptrec_rl.models.reranker import Reranked
from gptrec_rl.recommender import ScoringRecommender, Strategy
from gptrec_rl.runs.models import ModelChoice
from gptrec_rl.runs.run_folder import OnExisting
from gptrec_rl.runs.training import run_training
from gptrec_rl.store.trained_models import STUDENT, load_policy


def pretrain(
    data: Path,
    run_dir: Path,
    config: PretrainConfig,
    *,
    on_existing: OnExisting = "fail",
    threads: int | None = None,
    report: Path | None = None,
    command: str = "",
) -> Path:
    """Run stage 1 with a progress bar; arguments, result (the student's folder) and errors are `run_training`'s."""
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
        command=command,
        built_on=lambda begins: _built_on(config, begins),
    )


def _built_on(config: PretrainConfig, begins: bool) -> dict[str, str]:
    """Return the identities of the models that a student learns from: the one to start from is needed once.

    Raises:
        InputError: one of them is not there.
    """
    places = {"teacher": config.teacher, **({"start": config.start} if begins and config.start else {})}
    try:
        return {name: ModelChoice.parse(place).identity for name, place in places.items()}
    except InputError as error:
        raise InputError(f"a student needs its {' and its '.join(places)}: {error}") from None


def _stage_1(split: Split, config: PretrainConfig, begins: bool) -> Pretraining:
    split.require_room(config.model.slate_length)
    student = GPTRec.create(split.catalogue.n_items, config.model, config.dropout).to(best_device())
    start = config.start if begins else None  # a training that goes on has its own weights
    if start is not None:
        student.load_state_dict(_started_from(Path(start), split, student).state_dict())
    for place in (config.teacher, start):
        if place is not None and not ModelChoice.parse(place).trained_on(split):
            print(
                f"note: {place} was trained on another split, perhaps on these validation users, who choose the best "
                "student; give the data, split.validation_users and split.seed of its training if that is not meant",
                file=sys.stderr,
            )
    strategy: Strategy | None = "top-k" if config.rerank else None
    teacher = ModelChoice.parse(config.teacher).open(split, strategy, config.precision)
    if config.rerank is not None:
        teacher = Reranked(cast(ScoringRecommender, teacher), config.rerank, split)
    return Pretraining(student, teacher, split, config)


def _started_from(folder: Path, split: Split, student: GPTRec) -> GPTRec:
    """Load the student to go on from.

    Raises:
        InputError: there is none, or it has another size.
    """
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
