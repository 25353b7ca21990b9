"""How every training runs: its folder, progress, log, saved state, and report."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from gptrec_rl.config import TrainingConfig
from gptrec_rl.config_files import Change, changed_settings, read_config, write_config
from gptrec_rl.data import Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.learning.training import Progress, Training
from gptrec_rl.models.precision import keep_memory
from gptrec_rl.reporting.documents import Section, write_section
from gptrec_rl.reporting.progress import ProgressBar
from gptrec_rl.runs.inputs import DATA, inputs_of_split, record_inputs, recorded_inputs, require_same_inputs
from gptrec_rl.runs.run_folder import CONFIG, OnExisting, claim_folder, sole_user
from gptrec_rl.stops import stop_wanted
from gptrec_rl.store.files import recover
from gptrec_rl.store.manifest import MANIFEST, Entry, read_folder, refused_writes, write_folder
from gptrec_rl.store.trained_models import MODEL, STUDENT, fingerprint
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.folders import require_training

C = TypeVar("C", bound=TrainingConfig)

STATE = "state"
FIXED = ("model", "teacher", "start", "rerank")
"""Settings that a resumed training can't change: its weights, or the losses of its best ones, wouldn't compare."""


def _on_nothing(begins: bool) -> Mapping[str, str]:
    return {}


def read_training_config(
    model: type[C],
    run_dir: Path,
    on_existing: OnExisting,
    config_file: Path | None,
    overrides: list[Change],
) -> C:
    """Read a training's settings, on top of those of the run that it resumes.

    Raises:
        InputError: an unknown setting, or a value out of range.
    """
    stored = run_dir / CONFIG if on_existing == "resume" and (run_dir / CONFIG).exists() else None
    if stored is not None:
        require_training(run_dir)
    base = read_config(model, stored).model_dump() if stored else {}
    return read_config(model, config_file, overrides, base)


def run_training(
    data: Path,
    run_dir: Path,
    config: TrainingConfig,
    make: Callable[[Split, bool], Training[Any]],
    *,
    model_folder: str,
    title: str,
    on_existing: OnExisting,
    threads: int | None,
    report: Path | None,
    command: str,
    built_on: Callable[[bool], Mapping[str, str]] = _on_nothing,
) -> Path:
    """Train with a progress bar, and save what resuming needs every so often and at the end.

    Args:
        data: the data file.
        run_dir: gets the model, the log and the state.
        config: settings, the split's included.
        make: makes the training, untrained; told whether it begins, rather than goes on with its own weights.
        model_folder: of the run folder, for the best weights by validation.
        title: of the progress bar and of the report's section.
        on_existing: fail, resume or overwrite.
        threads: numerical threads; None: one a core.
        report: Markdown document to write a section into.
        command: what was typed, for the report and for who goes on.
        built_on: the identities of the models that it learns from, by setting; told the same.

    Returns:
        the model's folder.

    Raises:
        InputError: data, folder or saved state don't fit.
    """
    require_budget(config)
    keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    split = Split.of(Interactions.load(data), config.split)
    with sole_user(run_dir):
        training = _started(run_dir, split, config, make, built_on, on_existing)

        def save() -> None:
            training.require_finite()
            origin: dict[str, Any] = {
                "step": training.step,
                "catalogue_hash": split.catalogue.hash,
                "split_hash": split.hash,
                "config": config.model_dump(mode="json"),
            }
            if training.best_loss < math.inf:  # weights that were never validated are nobody's best
                write_folder(run_dir / model_folder, training.best_files, **origin)
            write_folder(run_dir / STATE, training.to_files(), **origin)

        with end_recorded(run_dir):
            _run(training, run_dir, title, save, command)
    if report is not None:
        _report(report, training, title, command)
    print(
        f"{title} after {training.step:,} steps ({training.elapsed_s / 60:.1f} min): {_best(training)}; "
        f"{run_dir / model_folder}"
    )
    if training.step < training.few_steps:
        print(_too_few(training.step, training.few_steps), file=sys.stderr)
    return run_dir / model_folder


def require_budget(config: TrainingConfig) -> None:
    """Refuse a training that would go on until its patience ends, perhaps for days.

    Raises:
        InputError: neither time nor steps are limited.
    """
    if config.max_minutes is None and config.max_steps is None:
        raise InputError("say how long to train: --max-minutes or --max-steps")


def _best(training: Training[Any]) -> str:
    if training.best_loss == math.inf:
        return "not validated yet"
    return f"validation {training.validates} {training.best_loss:.4f}"


def _too_few(n_steps: int, few: int) -> str:
    """Say that a budget is too small to learn in."""
    return (
        f"The budget is about {n_steps:,} steps, and fewer than {few} seldom teach more than what is popular; give "
        "more time (--max-minutes, --max-steps), a smaller batch_size or a smaller model."
    )


def _started(
    run_dir: Path,
    split: Split,
    config: TrainingConfig,
    make: Callable[[Split, bool], Training[Any]],
    built_on: Callable[[bool], Mapping[str, str]],
    on_existing: OnExisting,
) -> Training[Any]:
    """Make a training, or resume one, and claim its folder, which is as it was when anything is wrong."""
    saved = _saved_state(run_dir) if on_existing == "resume" else None
    inputs = {**inputs_of_split(split), **built_on(saved is None)}
    if saved is not None:
        _require_same(run_dir, saved[0], config, inputs)
        inputs = {**recorded_inputs(run_dir), **inputs}
    torch.manual_seed(config.seed)
    training = make(split, saved is None)
    if saved is not None:
        training.resume(saved[1])
    claim_folder(run_dir, on_existing)
    record_inputs(run_dir, inputs)
    with refused_writes(str(run_dir / CONFIG)):
        write_config(config, run_dir / CONFIG)
    return training


def _saved_state(run_dir: Path) -> tuple[Entry, Mapping[str, bytes]] | None:
    """Read what an earlier training saved; None when there is nothing."""
    for name in (STATE, MODEL, STUDENT):
        recover(run_dir / name)
    folder = run_dir / STATE
    return read_folder(folder) if (folder / MANIFEST).exists() else None


def _require_same(run_dir: Path, state: Entry, config: TrainingConfig, inputs: Mapping[str, str]) -> None:
    """Refuse to go on with other data, other models to learn from, or settings whose losses don't compare."""
    if state.split_hash != inputs[DATA]:
        raise InputError(
            f"{run_dir} was trained on other data or another split ({state.split_hash[:12]}, now "
            f"{inputs[DATA][:12]}); resume it with its own, or train a new model in another --run-dir"
        )
    require_same_inputs(run_dir, inputs)
    recorded = recorded_inputs(run_dir)
    stored = read_config(type(config), run_dir / CONFIG).model_dump(mode="json")
    for name, before, now in changed_settings(stored, config.model_dump(mode="json")):
        if name.partition(".")[0] in FIXED and not _is_moved(now, recorded.get(name)):
            raise InputError(
                f"{run_dir} has {name} = {before} and can't go on with {now}; leave it as it is, or train a new "
                "model in another --run-dir"
            )


def _is_moved(place: Any, identity: str | None) -> bool:
    """Tell whether a setting names a model that only lies elsewhere now."""
    is_model = identity is not None and isinstance(place, str) and Path(place).is_dir()
    return is_model and fingerprint(Path(place)) == identity


def _run(training: Training[Any], run_dir: Path, title: str, save: Callable[[], None], command: str) -> None:
    """Train, show progress, log it, and save, between steps alone: what an error interrupts isn't whole.

    Raises:
        Stopped: a signal came; all that was done until the end of its step is saved.
    """
    bar = ProgressBar(title)
    saved_at = time.monotonic()
    first_step = training.step + 1

    def show(progress: Progress) -> None:
        nonlocal saved_at
        if stop.is_wanted:
            save()
            bar.close()
            print(f"{title} is saved after {progress.step:,} steps; go on with: {_again(command)}", file=sys.stderr)
            stop.obey()
        rate = f"{progress.examples_per_s:.0f} examples/s"
        text = f"step {progress.step:,}, loss {progress.loss:.3f}, best: {_best(training)}, {rate}"
        bar.show(progress.fraction or 0.0, text)
        if progress.step == first_step + 2 and progress.fraction and not training.is_done:
            n_steps = round(progress.step / progress.fraction)
            if n_steps < training.few_steps:
                print(_too_few(n_steps, training.few_steps), file=sys.stderr)
        if progress.validation_loss is not None:
            try:
                with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps(asdict(progress)) + "\n")
            except OSError as error:  # a full disk: what was learned is what matters
                print(f"{run_dir / 'metrics.jsonl'} can't be written: {error}", file=sys.stderr)
        if time.monotonic() - saved_at > training.config.checkpoint_every_s:
            save()
            saved_at = time.monotonic()

    with stop_wanted() as stop:
        try:
            training.run(show)
        finally:
            bar.close()
        save()


def _again(command: str) -> str:
    """Return the command that goes on."""
    if not command:
        return "the same call, with on_existing='resume'"
    goes_on_by_itself = "--on-existing" in command or command.startswith("gptrec-rl experiment")
    return command if goes_on_by_itself else f"{command} --on-existing resume"


def _report(path: Path, training: Training[Any], title: str, command: str) -> None:

    examples = training.step * training.examples_per_step
    note = (
        f"{training.step:,} steps of {training.examples_per_step:,} examples ({examples:,} examples); "
        f"{_best(training)}."
    )
    write_section(path, "Results", Section(title, command, training.elapsed_s, notes=[note]))
