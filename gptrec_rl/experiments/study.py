"""One set of experiments under one budget: where runs and results are, which rows are missing, what makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.config import BUILT_IN, BuiltIn
from gptrec_rl.experiments.results import Result, read_result, read_tables
from gptrec_rl.experiments.sets import DATASET, ExperimentSet

RUNS = Path("runs/experiments")
RESULTS = Path("docs/results")


@dataclass(frozen=True)
class Made:
    """A row made with one seed.

    Attributes:
        result: the facts.
        tables: values per user, by point.
    """

    result: Result
    tables: Mapping[str, EvaluationTable]


@dataclass(frozen=True)
class Study:
    """A set of experiments under one budget.

    Attributes:
        experiments: the set.
        budget: what its results are called after.
        runs: folder of run folders.
        results: folder of results.
        data: the data file; None takes the one that the set names.
    """

    experiments: ExperimentSet
    budget: str
    runs: Path = RUNS
    results: Path = RESULTS
    data: Path | None = None

    @property
    def name(self) -> str:
        """What folders and documents are called after, such as ml1m-cpu."""
        return f"{self.experiments.name}-{self.budget}"

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.results / self.name

    def result_file(self, row_id: str, seed: int) -> Path:
        """Return the file of a row's facts."""
        return self.folder / f"{self._called(row_id, seed)}.json"

    def run_dir(self, row_id: str, seed: int) -> Path:
        """Return the run folder of a trained row."""
        return self.runs / self.name / self._called(row_id, seed)

    def _called(self, row_id: str, seed: int) -> str:
        return row_id if seed == self.experiments.rows[row_id].seeds[0] else f"{row_id}-seed{seed}"

    def command(self, row_id: str, seed: int) -> str:
        """Return the command that makes a row."""
        words = ["gptrec-rl experiment run", str(self.experiments.file(row_id)), "--budget", self.budget]
        if len(self.experiments.rows[row_id].seeds) > 1:
            words += ["--seed", str(seed)]
        if self.runs != RUNS:
            words += ["--runs", str(self.runs)]
        if self.results != RESULTS:
            words += ["--results", str(self.results)]
        return " ".join(words)

    def result(self, row_id: str, seed: int) -> Result | None:
        """Read the facts of a row.

        Raises:
            InputError: as in `read_result`, or they are of another row, budget or seed.
        """
        file, command = self.result_file(row_id, seed), self.command(row_id, seed)
        result = read_result(file, command)
        if result is not None and (result.row, result.budget, result.seed) != (row_id, self.budget, seed):
            raise InputError(
                f"{file} is the result of row {result.row}, budget {result.budget}, seed {result.seed}; run `{command}`"
            )
        return result

    def is_made(self, row_id: str, seed: int) -> bool:
        """Tell whether a row has a whole result."""
        try:
            return self.result(row_id, seed) is not None
        except InputError:
            return False

    def seed_of(self, row_id: str, seed: int) -> int:
        """Return the seed of the row that one made with a seed builds on: the same where there is one, or its first."""
        seeds = self.experiments.rows[row_id].seeds
        return seed if seed in seeds else seeds[0]

    def jobs(self, row_id: str | None, seed: int | None, with_dependencies: bool) -> list[tuple[str, int]]:
        """Return rows and seeds to make, in an order in which each finds what it builds on.

        Args:
            row_id: a row, which is made whether it has a result or not; None: all that have none.
            seed: one of the seeds; None: all.
            with_dependencies: make what these rows build on too, where its result or its weights are missing.

        Raises:
            InputError: the row has no such seed, or one of the rows not this budget.
        """
        named = self.experiments.rows if row_id is None else [row_id]
        wanted = [(each, own) for each in named for own in self.experiments.rows[each].seeds if seed in (None, own)]
        if row_id is None:
            wanted = [job for job in wanted if not self.is_made(*job)]
        elif not wanted:
            seeds = ", ".join(map(str, self.experiments.rows[row_id].seeds))
            raise InputError(f"{self.experiments.file(row_id)} has no seed {seed}, but {seeds}; add it there")
        jobs: dict[tuple[str, int], None] = {}
        for job in wanted:
            for each in self._line(*job):
                if each in wanted or (with_dependencies and not self._can_be_built_on(*each)):
                    jobs[each] = None
        for name, _ in jobs:
            row = self.experiments.rows[name]
            if row.is_trained and self.budget not in row.budgets:
                raise InputError(
                    f"{self.experiments.file(name)}: there is no budget {self.budget!r}; give one of "
                    f"{', '.join(row.budgets)}"
                )
        return list(jobs)

    def _line(self, row_id: str, seed: int) -> Iterator[tuple[str, int]]:
        """Name what a row builds on, the first to make first, and itself as the last, each with its seed."""
        for below in self.experiments.rows[row_id].needs:
            yield from self._line(below, self.seed_of(below, seed))
        yield row_id, seed

    def _can_be_built_on(self, row_id: str, seed: int) -> bool:
        has_model = not self.experiments.rows[row_id].is_trained or self.run_dir(row_id, seed).is_dir()
        return has_model and self.is_made(row_id, seed)

    def require_bases(self, jobs: Sequence[tuple[str, int]]) -> None:
        """Refuse jobs when what one of them builds on is neither made yet nor among them.

        Args:
            jobs: rows and seeds, as `jobs` orders them.

        Raises:
            InputError: as in `model`.
        """
        for row_id, seed in jobs:
            for name in self.experiments.rows[row_id].needs:
                if (name, self.seed_of(name, seed)) not in jobs:
                    self.model(name, seed)

    def model(self, name: str, seed: int) -> str:
        """Return what commands call a model that others build on: its built-in name, or its run folder.

        Args:
            name: a built-in model or a row.
            seed: of the row that asks.

        Raises:
            InputError: the row is not made yet, or its trained weights are not here.
        """
        if name in BUILT_IN:
            return name
        row = self.experiments.rows[name]
        if isinstance(row.how, BuiltIn):
            return row.how.model
        own_seed = self.seed_of(name, seed)
        folder = self.run_dir(name, own_seed)
        if not self._can_be_built_on(name, own_seed):
            raise InputError(
                f"{name} comes first, and its model in {folder} isn't finished; run "
                f"`{self.command(name, own_seed)}`, or add --with-dependencies"
            )
        return str(folder)

    def split(self) -> Split:
        """Open the data, made first where the set makes its own.

        Raises:
            InputError: the data file is missing or of other data, or not what the set would make.
        """
        dataset = self.experiments.dataset
        file = self.data_file
        made = None if dataset.synthetic is None else generate(**dataset.synthetic.model_dump())
        if not file.exists():
            if made is None:
                raise InputError(
                    f"{dataset.title} needs the data file {file}, which isn't there; make it by "
                    f"`{dataset.prepare}`, or name another place with --data"
                )
            made.save(file)
        interactions = Interactions.load(file)
        if interactions.name != dataset.data_name:
            raise InputError(
                f"{file} holds {interactions.name!r} and {self.experiments.folder} is about {dataset.data_name!r}; "
                "give its own data file with --data, and mind GPTREC_DATA"
            )
        if made is not None and interactions.hash != made.hash:
            raise InputError(
                f"{file} isn't what [synthetic] of {self.experiments.folder / DATASET} makes now; put its settings "
                "back, or remove the file and make all rows anew in other folders (--runs, --results)"
            )
        split = Split.of(interactions, dataset.split)
        split.require_room(dataset.k)
        return split

    @property
    def data_file(self) -> Path:
        """The data file: the given one, or the one that the set names; a set that makes its own has only that."""
        dataset = self.experiments.dataset
        return self.data if self.data is not None and dataset.synthetic is None else Path(dataset.data)

    def require_split(self, split: Split) -> None:
        """Refuse to add to results that can't stand in one table with those of a split.

        Raises:
            InputError: a result is of another split, or of lists of another length.
        """
        for row_id, row in self.experiments.rows.items():
            for seed in row.seeds:
                result = self.result(row_id, seed) if self.is_made(row_id, seed) else None
                if result is None:
                    continue
                file = self.result_file(row_id, seed)
                self._require_k(result, file)
                if result.split_hash != split.hash:
                    raise InputError(
                        f"{file} is of another split than {self.data_file} and {self.experiments.folder / DATASET} "
                        "give now; put them back, or make all rows anew in other folders (--runs, --results)"
                    )

    def _require_k(self, result: Result, file: Path) -> None:
        k = self.experiments.dataset.k
        if result.k != k:
            raise InputError(
                f"{file} has lists of {result.k} and {self.experiments.folder / DATASET} says k = {k}; put k back, or "
                "evaluate all rows anew into another folder (--results)"
            )

    def made(self) -> dict[str, list[Made]]:
        """Read the results of all rows, a list of seeds each; a row without a result has none.

        Raises:
            InputError: a result is half-written, damaged or of another row, or one is of another split or other users
                than the first, or of lists of another length than the set's.
        """
        rows: dict[str, list[Made]] = {}
        first: tuple[Path, str, EvaluationTable] | None = None
        for row_id, row in self.experiments.rows.items():
            rows[row_id] = []
            for seed in row.seeds:
                result = self.result(row_id, seed)
                if result is None:
                    continue
                file = self.result_file(row_id, seed)
                self._require_k(result, file)
                made = Made(result, read_tables(file, result, row.name))
                for table in made.tables.values():
                    own = file, self.command(row_id, seed), table
                    first = first or own
                    _require_same(first, own)
                rows[row_id].append(made)
        return rows


def _require_same(first: tuple[Path, str, EvaluationTable], other: tuple[Path, str, EvaluationTable]) -> None:
    try:
        other[2].require_comparable(first[2])
    except InputError as error:
        raise InputError(
            f"{first[0]} and {other[0]} can't stand in one table: {error}; make the one that is not of the present "
            f"data and split anew: `{first[1]}` or `{other[1]}`"
        ) from None
