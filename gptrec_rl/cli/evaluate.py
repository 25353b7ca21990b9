"""`gptrec-rl evaluate`: metrics of any models on held-out items, as a table, per user, as JSON, or in a document."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptrec_rl.cli.options import (
    FILE,
    data_option,
    k_option,
    let_threads_sleep,
    open_split,
    precision_option,
    report_option,
    require_table,
    require_writable,
    split_options,
    strategy_choice,
    threads_option,
    typed_command,
    use_threads,
)
from gptrec_rl.errors import InputError
from gptrec_rl.runs.models import ModelChoice

if TYPE_CHECKING:
    from gptrec_rl.config import Precision
    from gptrec_rl.data import Cases, Split
    from gptrec_rl.evaluation import EvaluationTable
    from gptrec_rl.recommender import Recommender, Strategy
    from gptrec_rl.reporting import Row

STRATEGY_NAMES: dict[Strategy, str] = {"next-k": "Next-K", "top-k": "Top-K"}


def _users(context: click.Context, parameter: click.Parameter, users: str) -> str | int:
    """Read who is asked: a name, or how many."""
    if users in ("test", "validation"):
        return users
    if users.isascii() and users.isdigit() and len(users) < 10 and int(users):
        return int(users)
    raise click.BadParameter(f"{users!r} is neither test, validation nor a number of users from 1")


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@data_option
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    type=strategy_choice,
    help="How models make lists; give both to compare.  [default: next-k for GPTRec, top-k for others]",
)
@click.option(
    "--users",
    default="test",
    show_default=True,
    callback=_users,
    help="test, validation, or a number: a sample of so many test users, drawn by the split's seed.",
)
@k_option
@split_options
@precision_option
@threads_option
@click.option("--baseline", help="Name of the model to show paired differences to.")
@click.option(
    "--per-user", type=click.Path(path_type=Path), help="File (.csv, .parquet), or folder for several models."
)
@click.option("--json", "json_file", type=FILE, help="File to write means, errors and differences into.")
@report_option
@click.option("--title", help="Heading of that section; left out, it names the data and the models.")
def evaluate(
    models: Sequence[str],
    data: Path,
    strategies: Sequence[Strategy],
    users: str | int,
    k: int,
    validation_users: int | None,
    split_seed: int,
    precision: Precision,
    threads: int | None,
    baseline: str | None,
    per_user: Path | None,
    json_file: Path | None,
    report: Path | None,
    title: str | None,
) -> None:
    """Ask models for the item that each user had next.

    Users with fewer than K items left to recommend are left out, and counted.

    A MODEL is markov, popularity, or the folder of a policy or of a run; name=MODEL names it in the table.
    """
    started = time.monotonic()
    let_threads_sleep()
    use_threads(threads)
    from gptrec_rl.files import write_atomically
    from gptrec_rl.reporting.table_files import write_per_user

    if json_file is not None:
        require_writable(json_file, "--json")
    split = open_split(data, validation_users, split_seed)
    choices = [ModelChoice.parse(model) for model in models]
    _check_training(choices, split, users)
    recommenders = _open(choices, strategies, split, precision)
    if baseline is not None and baseline not in recommenders:
        raise InputError(f"--baseline {baseline!r} is none of the models; give one of {', '.join(recommenders)}")
    files = _per_user_files(per_user, list(recommenders))
    cases, described = _cases(split, users, k, split_seed)
    tables = [_evaluate(name, recommender, cases, split, k) for name, recommender in recommenders.items()]
    result = Result(f"{split.interactions.name}, {described}", tables, baseline, time.monotonic() - started)
    for table, file in zip(tables, files, strict=False):
        write_per_user(table, file)
    if json_file is not None:
        write_atomically(json_file, json.dumps(result.facts(), indent=2) + "\n")
    if report is not None:
        result.write_section(report, title)
    click.echo(result.text())
    for file in files:
        click.echo(f"wrote {file}")


def _cases(split: Split, users: str | int, k: int, seed: int) -> tuple[Cases, str]:
    """Return the users to measure on, and who they are; those whom too few items are left for aren't among them."""
    cases = split.validation if users == "validation" else split.test
    n_all = len(cases.users)
    has_room = cases.with_room(k, split.catalogue.n_items)
    n_busy = n_all - len(has_room.users)
    if not len(has_room.users):
        raise InputError(f"a list of K = {k} items can't be made for any user: fewer are left; ask for a smaller --k")
    if isinstance(users, int):
        cases = has_room.sample(users, seed)
        described = f"{len(cases.users):,} of {n_all:,} test users (a sample by seed {seed})"
    else:
        cases, described = has_room, f"{len(has_room.users):,} {users} users"
    if n_busy:
        described += f" ({n_busy:,} left out, who have fewer than {k} items left)"
    return cases, described


@dataclass(frozen=True)
class Result:
    """What one call of the command measured.

    Attributes:
        described: data and users, in words.
        tables: one a model.
        baseline: name of the model that differences are to, None for none.
        seconds: how long it took, making the built-in models included.
    """

    described: str
    tables: Sequence[EvaluationTable]
    baseline: str | None
    seconds: float

    def text(self) -> str:
        """Return the tables for the terminal."""
        from gptrec_rl.reporting import Row, text_table
        from gptrec_rl.reporting.documents import duration

        names = self._columns
        parts = [self.described, text_table([Row.of(table) for table in self.tables], names, with_errors=True)]
        if self.baseline is not None:
            parts += [self._differences_title, text_table(self._differences(), names, with_errors=True)]
        return "\n\n".join([*parts, f"took {duration(self.seconds)}"])

    def facts(self) -> dict[str, Any]:
        """Return all of it in JSON types; what is not defined is null."""
        differences = {row.name: row for row in self._differences()}
        models = {}
        for table in self.tables:
            models[table.name] = {"metrics": _means(table.summary(), table.standard_errors())}
            if table.name in differences:
                row = differences[table.name]
                models[table.name]["differences"] = _means(row.values, row.errors)
        first = self.tables[0]
        return {
            "data": self.described,
            "split_hash": first.split_hash,
            "users": len(first.user_ids),
            "k": first.k,
            "baseline": self.baseline,
            "seconds": round(self.seconds, 1),
            "models": models,
        }

    def write_section(self, path: Path, title: str | None) -> None:
        """Write tables, command, time and machine into a document."""
        from gptrec_rl.reporting import Row, markdown_table
        from gptrec_rl.reporting.documents import Section, write_section

        names = self._columns
        notes = [f"Means over {self.described}, with standard errors."]
        if self.baseline is not None:
            notes += [self._differences_title, markdown_table(self._differences(), names, with_errors=True)]
        models = ", ".join(table.name for table in self.tables)
        section = Section(
            title=title or f"{self.described}: {models}",
            command=typed_command(),
            seconds=self.seconds,
            rows=[Row.of(table) for table in self.tables],
            metric_names=names,
            notes=notes,
        )
        write_section(path, "Results", section)

    @property
    def _columns(self) -> list[str]:
        """The metrics that tables show; files have all."""
        from gptrec_rl.metrics import metrics_at

        return [metric.name for metric in metrics_at(self.tables[0].k)]

    @property
    def _differences_title(self) -> str:
        return f"Paired differences to {self.baseline}, user by user:"

    def _differences(self) -> list[Row]:
        from gptrec_rl.reporting import Row

        baseline = next((table for table in self.tables if table.name == self.baseline), None)
        if baseline is None:
            return []
        rows = []
        for table in self.tables:
            if table is not baseline:
                paired = table.difference(baseline)
                means = {name: difference.mean for name, difference in paired.items()}
                errors = {name: difference.standard_error for name, difference in paired.items()}
                rows.append(Row(table.name, means, errors))
        return rows


def _means(means: Mapping[str, float], errors: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    return {name: {"mean": _defined(means[name]), "standard_error": _defined(errors[name])} for name in means}


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _check_training(choices: Sequence[ModelChoice], split: Split, users: str | int) -> None:
    """Refuse to validate a model on users that it may have been trained on, and mention another split."""
    for choice in choices:
        if choice.trained_on(split):
            continue
        if users == "validation":
            raise InputError(
                f"{choice.name} was trained on another split, perhaps on these validation users; "
                "give the data, --validation-users and --split-seed of its training, or --users test"
            )
        click.echo(f"note: {choice.name} was trained on another split than the one it is evaluated on", err=True)


def _open(
    choices: Sequence[ModelChoice], strategies: Sequence[Strategy], split: Split, precision: Precision
) -> dict[str, Recommender]:
    recommenders: dict[str, Recommender] = {}
    for name, choice, strategy in _named(choices, list(dict.fromkeys(strategies)) or [None]):
        if name in recommenders:
            raise InputError(f"two models are called {name!r}; tell them apart, as in another={choice.place}")
        recommenders[name] = choice.open(split, strategy, precision)
    return recommenders


def _named(
    choices: Sequence[ModelChoice], strategies: Sequence[Strategy | None]
) -> Iterator[tuple[str, ModelChoice, Strategy | None]]:
    """Name each model once a strategy; built-in models have but one way to make a list."""
    for choice in choices:
        for strategy in strategies if choice.is_trained else [None]:
            suffix = f" ({STRATEGY_NAMES[strategy]})" if strategy and len(strategies) > 1 else ""
            yield choice.name + suffix, choice, strategy


def _evaluate(name: str, recommender: Recommender, cases: Cases, split: Split, k: int) -> EvaluationTable:
    from tqdm import tqdm

    from gptrec_rl.evaluation import evaluate

    with tqdm(total=len(cases.users), desc=name, unit="user", disable=None, leave=False) as bar:
        table = evaluate(
            recommender, cases, split, name=name, k=k, progress=lambda done, total: bar.update(done - bar.n)
        )
    table.require_valid()
    return table


def _per_user_files(target: Path | None, names: Sequence[str]) -> list[Path]:
    """Say where the per-user table of each model goes."""
    if target is None:
        return []
    from gptrec_rl.reporting.table_files import SUFFIXES

    files = [target]
    if target.suffix.lower() not in SUFFIXES:
        files = [target / f"{name}.csv" for name in names]
    elif len(names) > 1:
        raise InputError(f"--per-user {target} is one file for {len(names)} models; give a folder")
    for file in files:
        require_table(file, "--per-user")
    return files
