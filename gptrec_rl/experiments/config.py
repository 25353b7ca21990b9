"""A set of experiments as files: `dataset.toml` says what the data are, every other file is one row or one curve."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gptrec_rl.config import Settings, SplitConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.errors import InputError
from gptrec_rl.models.recommender import Strategy
from gptrec_rl.models.reranker import Method, Scaling

DATASET = "dataset.toml"
PUBLISHED = "published.toml"

BuiltInModel = Literal["popularity", "markov"]
BUILT_IN: tuple[BuiltInModel, ...] = ("popularity", "markov")


class SyntheticConfig(Settings):
    """The made-up world, as `gptrec_rl.data.sources.synthetic.generate` takes it."""

    n_users: PositiveInt = 2000
    n_items: PositiveInt = 400
    mean_length: PositiveFloat = 40.0
    n_genres: PositiveInt = 8
    seed: int = 0


class DatasetConfig(Settings):
    """Which data the rows of a set are about."""

    title: str
    """What documents call it."""
    data: str
    """The data file."""
    data_name: str
    """What the file calls its data: no row is made of other data by mistake."""
    prepare: str = ""
    """The command that makes the file."""
    synthetic: SyntheticConfig | None = None
    """Given, the file is made when it is missing."""
    split: SplitConfig = SplitConfig()
    k: PositiveInt = 10
    """Length of the lists."""
    baseline: str = ""
    """The row that the others are tested against; empty for none."""


class BuiltIn(Settings):
    """A model that needs no training."""

    model: BuiltInModel


class Train(Settings):
    """A model of `gptrec-rl train`."""

    model: str
    """As `gptrec-rl train` calls it."""


class Pretrain(Settings):
    """A student of stage 1."""

    teacher: str
    """A built-in model, or the row of a trained one; `[settings.rerank]` reranks its lists."""
    start: str | None = None
    """The row of a student to go on from; None: random weights."""


class Tune(Settings):
    """A student after stage 2."""

    student: str
    """The row that it starts from."""
    goal: str
    """As `gptrec-rl tune --goal` takes it."""
    serial: bool = False
    """In one process, without Redis: for tiny runs."""


class Rerank(Settings):
    """A curve: a scoring model's lists, reranked with each of many weights."""

    base: str
    """A built-in model, or the row of a trained one."""
    method: Method
    scaling: Scaling
    weights: tuple[float, ...] = Field(min_length=1)
    goals: tuple[str, ...] = Field(min_length=1)
    """The best weight for each of these goals keeps its values per user, which paired tests need."""


How = BuiltIn | Train | Pretrain | Tune | Rerank


class RowConfig(Settings):
    """One row of Table 3, or one curve of a figure; exactly one of the tables that say how it is made."""

    name: str
    type: str
    """Table 3's model type."""
    place: float
    """Where in the table: smaller is higher."""
    published: str = ""
    """The row's key in `published.toml`; empty where nothing was published."""
    strategies: tuple[Strategy, ...] = Field(("next-k",), min_length=1)
    """How lists are made; the first one is the row's own, two of them draw a panel of Figure 3."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    built_in: BuiltIn | None = None
    train: Train | None = None
    pretrain: Pretrain | None = None
    tune: Tune | None = None
    rerank: Rerank | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training, as its command's `--config` takes them."""
    budgets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of each budget, which win over the others."""

    @model_validator(mode="after")
    def _is_made_in_one_way(self) -> RowConfig:
        if len(self._ways) != 1:
            raise ValueError("a row has exactly one of the tables built_in, train, pretrain, tune and rerank")
        if self.is_trained and not self.budgets:
            raise ValueError("a row that is trained needs a budget, such as [budgets.cpu] with max_minutes = 30")
        return self

    @property
    def _ways(self) -> list[How]:
        ways = (self.built_in, self.train, self.pretrain, self.tune, self.rerank)
        return [way for way in ways if way is not None]

    @property
    def how(self) -> How:
        """What the row is made by."""
        return self._ways[0]

    @property
    def is_trained(self) -> bool:
        """Whether making the row trains a model."""
        return isinstance(self.how, Train | Pretrain | Tune)

    @property
    def needs(self) -> tuple[str, ...]:
        """The rows that have to be made before this one."""
        names: tuple[str | None, ...] = ()
        match self.how:
            case Pretrain(teacher=teacher, start=start):
                names = (teacher, start)
            case Tune(student=name) | Rerank(base=name):
                names = (name,)
        return tuple(name for name in names if name is not None and name not in BUILT_IN)

    def settings_of(self, budget: str) -> dict[str, Any]:
        """Return the settings of the training under a budget."""
        return _merged(self.settings, self.budgets.get(budget, {}))

    def makes_otherwise(self, other: RowConfig, budget: str) -> bool:
        """Tell whether another configuration would make the row in another way under a budget."""
        return (self.how, self.strategies, self.settings_of(budget)) != (
            other.how,
            other.strategies,
            other.settings_of(budget),
        )


class Published(Settings):
    """What was published of one model on one data set."""

    source: str
    """Key of `sources`."""
    values: dict[str, float]
    """By metric name."""


class PublishedNumbers(Settings):
    """All published numbers, with their sources."""

    sources: dict[str, str]
    sets: dict[str, dict[str, Published]]
    """By the set's folder name and the row's key."""


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
            nearest = difflib.get_close_matches(row_id, [*BUILT_IN, *self.rows], n=1, cutoff=0.0)
            raise InputError(
                f"{asked_by}: there is no row {row_id!r} in {self.folder}; did you mean {', '.join(nearest)}?"
            )
        return self.rows[row_id]


def read_set(folder: Path) -> ExperimentSet:
    """Read a set of experiments and check that its rows fit together.

    Raises:
        InputError: the folder has no `dataset.toml` or no row, a file is wrong, a row builds on one that isn't there or
            on itself, or what it calls published isn't in the file of published numbers.
    """
    if not (folder / DATASET).is_file():
        raise InputError(f"{folder} is no set of experiments: it has no {DATASET}; give one such as experiments/ml1m")
    dataset = read_config(DatasetConfig, folder / DATASET)
    files = sorted(file for file in folder.glob("*.toml") if file.name != DATASET)
    rows = {file.stem: _read_row(file) for file in files}
    if not rows:
        raise InputError(f"{folder} has no row; write one file a row beside {DATASET}")
    ordered = dict(sorted(rows.items(), key=lambda item: (item[1].place, item[0])))
    numbers = _read_published(folder.parent / PUBLISHED)
    of_set = numbers.sets.get(folder.resolve().name, {})
    published = {row_id: _published(of_set, row, folder / f"{row_id}.toml") for row_id, row in ordered.items()}
    known = {row_id: found for row_id, found in published.items() if found is not None}
    experiments = ExperimentSet(folder, dataset, ordered, known, numbers.sources)
    for row_id in ordered:
        lineage(experiments, row_id)
    return experiments


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


def _read_row(file: Path) -> RowConfig:
    try:
        return read_config(RowConfig, file)
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def _read_published(file: Path) -> PublishedNumbers:
    return read_config(PublishedNumbers, file) if file.exists() else PublishedNumbers(sources={}, sets={})


def _published(of_set: Mapping[str, Published], row: RowConfig, file: Path) -> Published | None:
    if row.published and row.published not in of_set:
        raise InputError(
            f"{file}: published = {row.published!r} is not in {file.parent.parent / PUBLISHED}; it has "
            f"{', '.join(of_set) or 'nothing for this set'}"
        )
    return of_set.get(row.published)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table in which the upper one's values win, key by key."""
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged
