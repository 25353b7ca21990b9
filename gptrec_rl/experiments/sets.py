"""A set of experiments: a folder whose rows fit together, read and checked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gptrec_rl.config import PretrainConfig, TrainingConfig, TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.errors import InputError, nearest
from gptrec_rl.experiments.config import BUILT_IN, DatasetConfig, Pretrain, Rerank, RowConfig, Train, Tune
from gptrec_rl.experiments.published import PUBLISHED, Published, read_published
from gptrec_rl.kinds import trained_kinds

DATASET = "dataset.toml"


@dataclass(frozen=True)
class ExperimentSet:
    """A folder of experiments.

    Attributes:
        folder: where the files are.
        dataset: what the data are.
        rows: by id, which is the file's name, in the order of the table.
        published: by the rows' ids.
        sources: of what was published, by their keys.
    """

    folder: Path
    dataset: DatasetConfig
    rows: Mapping[str, RowConfig]
    published: Mapping[str, Published]
    sources: Mapping[str, str]

    @property
    def name(self) -> str:
        """What folders of runs and results are called after."""
        return self.folder.resolve().name

    def file(self, row_id: str) -> Path:
        """Return the file of a row."""
        return self.folder / f"{row_id}.toml"

    def row(self, row_id: str, asked_by: str) -> RowConfig:
        """Return a row.

        Raises:
            InputError: there is none of this id; the nearest right one is named.
        """
        if row_id not in self.rows:
            meant = nearest(row_id, [*BUILT_IN, *self.rows])
            raise InputError(f"{asked_by}: there is no row {row_id!r} in {self.folder}; did you mean {meant}?")
        return self.rows[row_id]


def read_set(folder: Path, budget: str) -> ExperimentSet:
    """Read a set of experiments and check that its rows fit together, under this budget and all that they have.

    Args:
        folder: of the set.
        budget: under which the rows are to be made.

    Raises:
        InputError: the folder has no `dataset.toml` or no row, a file or one of its settings is wrong, two rows have
            one name, a row builds on one that isn't there, is of another kind than it needs, or builds on the row
            itself, or what it calls published isn't in the file of published numbers.
    """
    if not (folder / DATASET).is_file():
        raise InputError(f"{folder} is no set of experiments: {_why_no_set(folder)}")
    dataset = read_config(DatasetConfig, folder / DATASET)
    files = sorted(file for file in folder.glob("*.toml") if file.name != DATASET)
    rows = {file.stem: _read_row(file) for file in files}
    if not rows:
        raise InputError(f"{folder} has no row; write one file a row beside {DATASET}")
    called: dict[str, str] = {}
    for row_id, row in rows.items():
        if row.name in called:
            raise InputError(f"{folder}: {called[row.name]} and {row_id} are both called {row.name!r}; rename one")
        called[row.name] = row_id
    ordered = dict(sorted(rows.items(), key=lambda item: (item[1].place, item[0])))
    numbers = read_published(folder.parent)
    of_set = numbers.sets.get(folder.resolve().name, {})
    published = {row_id: _published(of_set, row, folder / f"{row_id}.toml") for row_id, row in ordered.items()}
    known = {row_id: found for row_id, found in published.items() if found is not None}
    experiments = ExperimentSet(folder, dataset, ordered, known, numbers.sources)
    for each in {own for row in rows.values() for own in row.budgets}:
        _require_fit(_under(experiments, each))
    experiments = _under(experiments, budget)
    _require_fit(experiments)
    return experiments


def _why_no_set(folder: Path) -> str:
    """Say what is wrong with a path that has no data set's file, and what to give or write instead."""
    if (row := folder.with_name(f"{folder.name}.toml")).is_file():
        return f"did you mean its row {row}?"
    if not folder.is_dir():
        return "it isn't there; give a folder such as experiments/ml1m, or a row's file in one"
    if sets := sorted(file.parent.name for file in folder.glob(f"*/{DATASET}")):
        return f"it holds {', '.join(sets)}; give one of them, such as {folder / sets[0]}"
    return f"it has no {DATASET}, which says what the data are; write one like that of experiments/synthetic"


def _under(experiments: ExperimentSet, budget: str) -> ExperimentSet:
    return replace(experiments, rows={row_id: row.under(budget) for row_id, row in experiments.rows.items()})


def _require_fit(experiments: ExperimentSet) -> None:
    for row_id in experiments.rows:
        lineage(experiments, row_id)
        _require_models(experiments, row_id)


def lineage(experiments: ExperimentSet, row_id: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return the rows that a row builds on, the first to make first, and the row itself as the last.

    Args:
        experiments: the set.
        row_id: of the row.
        above: rows that build on this one.

    Raises:
        InputError: one of them isn't there, or they build on each other in a circle.
    """
    asked_by = str(experiments.file(above[-1]) if above else experiments.folder)
    row = experiments.row(row_id, asked_by)
    if row_id in above:
        circle = " -> ".join([*above[above.index(row_id) :], row_id])
        raise InputError(f"{asked_by}: rows build on each other in a circle: {circle}; let one start from another")
    below = [each for name in row.needs for each in lineage(experiments, name, (*above, row_id))]
    return list(dict.fromkeys([*below, row_id]))


def _require_models(experiments: ExperimentSet, row_id: str) -> None:
    """Refuse to start a GPTRec from another model, and to build anything on a curve."""
    row = experiments.rows[row_id]
    students: tuple[str | None, ...] = ()
    match row.how:
        case Pretrain(start=name) | Tune(student=name):
            students = (name,)
    for name in row.needs:
        how = experiments.rows[name].how
        if isinstance(how, Rerank) or (name in students and not isinstance(how, Pretrain | Tune)):
            needed = "a GPTRec's" if name in students else "a model's"
            raise InputError(f"{experiments.file(row_id)}: it builds on {name}, which is not {needed} row; name one")


def _read_row(file: Path) -> RowConfig:
    try:
        row = read_config(RowConfig, file)
        _check_settings(row)
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None
    return row


def _check_settings(row: RowConfig) -> None:
    """Read the training's settings under each budget, so that what is wrong shows before anything is trained."""
    match row.how:
        case Train(model=name):
            kind: type[TrainingConfig] | type[TuneConfig] = trained_kinds()[name].config
        case Pretrain():
            kind = PretrainConfig
        case Tune():
            kind = TuneConfig
        case _:
            return
    for budget in row.budgets:
        try:
            read_config(kind, None, base=row.settings_of(budget))
        except InputError as error:
            raise InputError(f"budget {budget}: {str(error).removeprefix('the preset: ')}") from None


def _published(of_set: Mapping[str, Published], row: RowConfig, file: Path) -> Published | None:
    if row.published and row.published not in of_set:
        raise InputError(
            f"{file}: published = {row.published!r} is not in {file.parent.parent / PUBLISHED}; it has "
            f"{', '.join(of_set) or 'nothing for this set'}"
        )
    return of_set.get(row.published)
