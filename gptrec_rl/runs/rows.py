"""How `gptrec-rl experiment run` makes one row: train or resume, evaluate on all test users, keep the result."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from gptrec_rl.config import PretrainConfig, TrainingConfig, TuneConfig
from gptrec_rl.config_files import changed_settings, read_config
from gptrec_rl.data import Split, statistics
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable, evaluate, measure
from gptrec_rl.experiments.config import BuiltIn, Pretrain, Rerank, RowConfig, Train, Tune
from gptrec_rl.experiments.goal_values import goal_value
from gptrec_rl.experiments.results import Point, Result, per_user_file, point_of, sha256_of, write_result
from gptrec_rl.experiments.study import Study
from gptrec_rl.kinds import trained_kinds
from gptrec_rl.models.network import WEIGHTS_FILE
from gptrec_rl.recommender import Recommender, ScoringRecommender
from gptrec_rl.reporting.documents import machine_description
from gptrec_rl.reporting.progress import ProgressBar
from gptrec_rl.runs.models import ModelChoice
from gptrec_rl.runs.pretrain import pretrain
from gptrec_rl.runs.run_folder import CONFIG
from gptrec_rl.runs.train import train
from gptrec_rl.runs.training import STATE
from gptrec_rl.runs.tune import tune
from gptrec_rl.store.manifest import read_folder
from gptrec_rl.store.trained_models import read_model
from gptrec_rl.telemetry.history import RunHistory, Validation

T = TypeVar("T")

LIBRARIES = ("numpy", "scipy", "torch", "transformers", "implicit")
FREE = {"max_minutes", "max_steps", "steps", "data", "teacher", "start", "reward_model", "run_id"}
"""Settings that a training may go on with when they have changed: they say how long it takes, and where things are.

What is there is compared by content, by the training itself and by `_built_on`.
"""


@dataclass(frozen=True)
class Trained:
    """A model that can be evaluated.

    Attributes:
        place: built-in name or run folder.
        settings: of its training, defaults included.
        seconds: of its training, all resumed parts together.
        steps: of its training; None where there was none.
        validations: of the validator, for a tuned model.
    """

    place: str
    settings: Mapping[str, Any]
    seconds: float = 0.0
    steps: int | None = None
    validations: tuple[Validation, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What the evaluation of a row gave: all its points, and the tables of those whose users are kept."""

    points: Mapping[str, Point]
    tables: Mapping[str, EvaluationTable]


def make_row(study: Study, split: Split, row_id: str, seed: int) -> Result:
    """Train or resume a row's model, evaluate it, and write the result.

    Raises:
        InputError: a setting is wrong, or the row that this one builds on is not made yet, or of another split.
    """
    row = study.experiments.rows[row_id]
    try:
        built_on = _built_on(study, row_id, seed)
        trained = _trained(study, split, row_id, seed)
    except InputError as error:
        raise InputError(f"{study.experiments.file(row_id)}: {error}") from None
    started = time.monotonic()
    k = study.experiments.dataset.k
    measured = (
        _curve(row.name, row.how, trained, split, k)
        if isinstance(row.how, Rerank)
        else _strategies(row, trained, split, k)
    )
    per_user = per_user_file(measured.tables)
    result = Result(
        row=row_id,
        budget=study.budget,
        seed=seed,
        configuration=row,
        settings=dict(trained.settings),
        data={"name": split.interactions.name, **asdict(statistics(split.interactions))},
        catalogue_hash=split.catalogue.hash,
        split_hash=split.hash,
        users=len(split.test.users),
        k=k,
        points=dict(measured.points),
        per_user_sha256=sha256_of(per_user),
        weights=_weights(trained.place) if row.is_trained else "",
        built_on=built_on,
        training_s=round(trained.seconds, 3),
        evaluation_s=round(time.monotonic() - started, 3),
        steps=trained.steps,
        validations=trained.validations,
        machine=_machine(),
        versions={name: version(name) for name in LIBRARIES},
        commit=_commit(),
        command=study.command(row_id, seed),
    )
    write_result(study.result_file(row_id, seed), result, per_user)
    return result


def _trained(study: Study, split: Split, row_id: str, seed: int) -> Trained:
    """Train or resume what the row is made by."""
    row = study.experiments.rows[row_id]
    run_dir, command = study.run_dir(row_id, seed), study.command(row_id, seed)

    def model(name: str) -> str:
        return _of_split(study.model(name, seed), split)

    shared = {"split": study.experiments.dataset.split.model_dump(exclude_none=True), "seed": seed}
    settings = {**row.settings_of(study.budget), **shared}
    match row.how:
        case BuiltIn(model=name):
            return Trained(name, {})
        case Rerank(base=base):
            return Trained(model(base), {})
        case Train(model=name):
            return _train(study, run_dir, name, settings, command)
        case Pretrain(teacher=teacher, start=start):
            started = {} if start is None else {"start": model(start)}
            return _pretrain(study, run_dir, {**settings, "teacher": model(teacher), **started}, command)
        case Tune() as how:
            asked = {} if how.reward_model is None else {"reward_model": str(Path(model(how.reward_model)).resolve())}
            return _tune(study, run_dir, how, {**settings, "goal": how.goal, **asked}, model(how.student), command)


def _of_split(place: str, split: Split) -> str:
    """Return where a model is, once it is known to be of this split."""
    if not ModelChoice.parse(place).trained_on(split):
        raise InputError(
            f"{place} was trained on another split: its figures and those of what builds on it would mean nothing; "
            "train it anew in another folder (--runs, --results)"
        )
    return place


def _require_same_settings(run_dir: Path, config: TrainingConfig | TuneConfig) -> None:
    """Refuse to go on with a training that had other settings: its result would be of neither."""
    if not (run_dir / CONFIG).exists():
        return
    before = read_config(type(config), run_dir / CONFIG).model_dump(exclude=FREE)
    changed = [
        f"{name} = {old}, now {new}" for name, old, new in changed_settings(before, config.model_dump(exclude=FREE))
    ]
    if changed:
        raise InputError(
            f"{run_dir} was trained with {'; '.join(changed)}; remove that folder to train the row anew, or put its "
            "settings back"
        )


def _built_on(study: Study, row_id: str, seed: int) -> dict[str, str]:
    """Return the SHA-256 of the weights that a row builds on, by row; a training goes on only from those it began with.

    Raises:
        InputError: what it builds on isn't made yet, or has been trained anew since the row's training began.
    """
    row, run_dir = study.experiments.rows[row_id], study.run_dir(row_id, seed)
    now = {name: _weights(study.model(name, seed)) for name in row.needs}
    if not now or not row.is_trained:
        return now
    began = run_dir.with_name(f"{run_dir.name}.built-on.json")  # a run folder is made by its training alone
    if not (run_dir / CONFIG).exists() or not began.exists():
        began.parent.mkdir(parents=True, exist_ok=True)
        began.write_text(json.dumps(now, indent=1) + "\n")
    before = json.loads(began.read_bytes())
    other = [name for name, weights in now.items() if weights != before.get(name)]
    if other:
        raise InputError(
            f"{run_dir} was trained on other weights than {', '.join(other)} has now; remove that folder to train the "
            "row anew"
        )
    return now


def _weights(place: str) -> str:
    """Return the SHA-256 of a trained model's weights; empty for a built-in model, which the split alone makes."""
    return read_model(Path(place))[0].files[WEIGHTS_FILE].sha256 if ModelChoice.parse(place).is_trained else ""


def _train(study: Study, run_dir: Path, model: str, settings: Mapping[str, Any], command: str) -> Trained:
    config = read_config(trained_kinds()[model].config, None, base=settings)
    _require_same_settings(run_dir, config)
    train(study.data_file, run_dir, config, on_existing="resume", command=command)
    return _finished(run_dir, config)


def _pretrain(study: Study, run_dir: Path, settings: Mapping[str, Any], command: str) -> Trained:
    config = read_config(PretrainConfig, None, base=settings)
    _require_same_settings(run_dir, config)
    pretrain(study.data_file, run_dir, config, on_existing="resume", command=command)
    return _finished(run_dir, config)


def _finished(run_dir: Path, config: TrainingConfig) -> Trained:
    """Read how long a training took over all its parts."""
    counters = json.loads(read_folder(run_dir / STATE)[1]["counters.json"])
    settings = config.model_dump(mode="json", exclude={"teacher", "start"})  # the row names them
    return Trained(str(run_dir), settings, counters["elapsed_s"], counters["step"])


def _tune(study: Study, run_dir: Path, how: Tune, settings: Mapping[str, Any], student: str, command: str) -> Trained:
    config = read_config(TuneConfig, None, base={**settings, "data": str(study.data_file.resolve())})
    _require_same_settings(run_dir, config)
    tune(run_dir, config, Path(student), on_existing="resume", serial=how.serial, command=command)
    history = RunHistory.read(run_dir)
    checked = tuple(
        Validation(step=v.step, minutes=v.minutes, reward=v.reward, values=v.values, errors=v.errors)
        for v in history.validations
    )
    kept = config.model_dump(mode="json", exclude={"data", "reward_model", "run_id"})  # the row names the model
    return Trained(str(run_dir), kept, history.seconds, history.step, checked)


def _strategies(row: RowConfig, trained: Trained, split: Split, k: int) -> Measured:
    """Evaluate a model by each of the row's strategies."""
    choice = ModelChoice(row.name, _of_split(trained.place, split))
    tables: dict[str, EvaluationTable] = {
        strategy: _evaluated(f"{row.name}, {strategy}", choice.open(split, strategy, "auto"), split, k)
        for strategy in row.strategies
    }
    return Measured({strategy: point_of(table) for strategy, table in tables.items()}, tables)


def _evaluated(name: str, model: Recommender, split: Split, k: int) -> EvaluationTable:
    table = _with_bar(name, lambda show: evaluate(model, split.test, split, name=name, k=k, progress=show))
    table.require_valid()
    return table


def _curve(name: str, rerank: Rerank, trained: Trained, split: Split, k: int) -> Measured:
    """Rerank with all weights over one pass of the base model; keep the users of each goal's best weight."""
    from gptrec_rl.config import RerankConfig
    from gptrec_rl.models.reranker import sweep

    configs = [RerankConfig(method=rerank.method, weight=weight, scaling=rerank.scaling) for weight in rerank.weights]
    base = cast(ScoringRecommender, ModelChoice.parse(trained.place).open(split, "top-k", "auto"))
    cases = split.test
    lists = _with_bar(
        name,
        lambda show: sweep(base, configs, split, cases.histories, k, progress=show),
    )  # [W, B, K]
    tables = {
        weight: measure(items, cases, split, name=name) for weight, items in zip(rerank.weights, lists, strict=True)
    }
    for table in tables.values():
        table.require_valid()
    best_for: dict[float, list[str]] = {}
    for goal in rerank.goals:
        values = {weight: goal_value(goal, table.summary(), k) for weight, table in tables.items()}
        best_for.setdefault(max(values, key=values.__getitem__), []).append(goal)
    points = {_label(weight): point_of(table, weight, best_for.get(weight, ())) for weight, table in tables.items()}
    return Measured(points, {_label(weight): tables[weight] for weight in best_for})


def _with_bar(name: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
    """Do work that reports how many users of all are done."""
    bar = ProgressBar(name)
    try:
        return work(lambda done, total: bar.show(done / total, f"{done:,} of {total:,} users"))
    finally:
        bar.close()


def _label(weight: float) -> str:
    return f"{weight:g}"


def _machine() -> str:
    """Describe this machine, with its GPU where there is one."""
    from torch import cuda

    return machine_description() + (f", {cuda.get_device_name()}" if cuda.is_available() else "")


def _commit() -> str | None:
    """Return the repository's commit, with a + where tracked files have changed; None outside of a repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return described.stdout.strip() or None
