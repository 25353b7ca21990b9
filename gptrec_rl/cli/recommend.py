"""`gptrec-rl recommend`: lists for one user, for any history, or for everyone into a file."""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
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
    require_table,
    split_options,
    strategy_choice,
    threads_option,
    use_threads,
)
from gptrec_rl.errors import InputError
from gptrec_rl.runs.models import ModelChoice

if TYPE_CHECKING:
    import numpy as np

    from gptrec_rl.config import Precision
    from gptrec_rl.data import Catalogue, Interactions
    from gptrec_rl.recommender import Recommender, Strategy

N_SHOWN = 5


@click.command()
@click.option("--model", required=True, help="markov, popularity, or the folder of a policy or of a run.")
@data_option
@click.option("--user", help="Id of a user, whose whole history is read.")
@click.option("--history", help="Item ids, oldest first, separated by commas; '' is a new user.")
@click.option("--all", "everyone", is_flag=True, help="All users, into the file --out.")
@click.option("--out", type=FILE, help="With --all: file to write (.csv, .parquet).")
@k_option
@click.option("--strategy", type=strategy_choice, help="How lists are made.  [default: what the model is trained for]")
@click.option("--allowed", type=FILE, help="File of the item ids that may be recommended, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@split_options
@precision_option
@threads_option
def recommend(
    model: str,
    data: Path,
    user: str | None,
    history: str | None,
    everyone: bool,
    out: Path | None,
    k: int,
    strategy: Strategy | None,
    allowed: Path | None,
    as_json: bool,
    validation_users: int | None,
    split_seed: int,
    precision: Precision,
    threads: int | None,
) -> None:
    """Recommend items to a user, to a history, or to everyone."""
    if (user is not None) + (history is not None) + everyone != 1:
        raise click.UsageError("give one of --user, --history and --all")
    if everyone != (out is not None):
        raise click.UsageError("--all and --out go together")
    if out is not None:
        require_table(out, "--out")
    let_threads_sleep()
    use_threads(threads)
    import numpy as np

    split = open_split(data, validation_users, split_seed)
    interactions, catalogue = split.interactions, split.catalogue
    may = _read_allowed(allowed, catalogue) if allowed is not None else None
    recommender = ModelChoice.parse(model).open(split, strategy, precision)
    if out is not None:
        _write_all(recommender, interactions, k, may, out)
        return
    if user is not None:
        name, items = f"user {user}", interactions.histories[interactions.row(user)].tolist()
    else:
        name, items = "this history", [_item(text, catalogue) for text in _split_ids(history or "")]
    left = np.ones(catalogue.n_items, dtype=bool) if may is None else may.copy()
    left[np.array(items, dtype=np.int64) - 1] = False
    if not left.any():
        raise InputError(f"nothing is left to recommend to {name}; allow more items")
    if left.sum() < k:
        click.echo(f"note: only {left.sum()} items are left for {name}, so the list is shorter", err=True)
    made = Recommendation.make(recommender, items, min(k, int(left.sum())), may, catalogue)
    click.echo(json.dumps(made.facts(user), indent=2) if as_json else made.text(name))


def _split_ids(text: str) -> list[str]:
    """Split at commas, but for those within quotation marks, as CSV does."""
    try:
        return next(csv.reader([text]), []) if text.strip() else []
    except csv.Error as error:
        raise InputError(f"--history can't be read: {error}; separate item ids by commas") from None


def _item(text: str, catalogue: Catalogue) -> int:
    """Return the number of an item, by its id as it stands, or without the blanks around it."""
    try:
        return catalogue.internal(text)
    except InputError:
        if text == text.strip():
            raise
        return catalogue.internal(text.strip())


@dataclass(frozen=True)
class Recommendation:
    """One list, and the history it was made for.

    Attributes:
        history: the items, oldest first, each as `_describe` has it.
        items: the recommended ones, best first, with rank and score.
        ild: intra-list distance, 0..0.5; None where an item has no genre.
    """

    history: Sequence[Mapping[str, Any]]
    items: Sequence[Mapping[str, Any]]
    ild: float | None

    @classmethod
    def make(
        cls, recommender: Recommender, history: Sequence[int], k: int, allowed: np.ndarray | None, catalogue: Catalogue
    ) -> Recommendation:
        """Ask a recommender for one list of K items, and look up what they are."""
        from gptrec_rl import metrics

        slates = recommender.recommend([history], k, allowed)
        ild = float(metrics.ild(slates.items, catalogue.genres, k)[0])
        return cls(
            [_describe(item, catalogue) for item in history],
            _ranked(slates.items[0], slates.scores[0], catalogue),
            ild if math.isfinite(ild) else None,
        )

    def facts(self, user: str | None) -> dict[str, Any]:
        """Return all of it in JSON types; genres are lists."""
        lists = {
            name: [{**item, "genres": item["genres"].split("|") if item["genres"] else []} for item in items]
            for name, items in (("history", self.history), ("items", self.items))
        }
        return {"user": user, **lists, "ild": self.ild}

    def text(self, name: str) -> str:
        """Return the last items of the history and the list, for people."""
        shown = self.history[-N_SHOWN:]
        n_items = len(self.history)
        parts = [f"{name[0].upper()}{name[1:]} is new: there are no items yet."]
        if n_items:
            counted = "1 item" if n_items == 1 else f"{n_items:,} items"
            parts = [f"{name[0].upper()}{name[1:]} has {counted}" + ("; the last ones:" if n_items > N_SHOWN else ":")]
            parts.append(_aligned(shown))
        ild = "" if self.ild is None else f" (intra-list distance {self.ild:.4f}, at most 0.5)"
        return "\n\n".join([*parts, f"Recommended{ild}:", _aligned(self.items)])


def _describe(item: int, catalogue: Catalogue) -> dict[str, Any]:
    return {
        "item": str(catalogue.item_ids[item - 1]),
        "title": catalogue.title(item),
        "genres": "|".join(catalogue.genres_of(item)),
    }


def _ranked(items: np.ndarray, scores: np.ndarray, catalogue: Catalogue) -> list[dict[str, Any]]:
    return [
        {"rank": rank, **_describe(int(item), catalogue), "score": float(score)}
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
    ]


def _aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Align columns, scores to the right."""
    from gptrec_rl.reporting.grids import Grid

    lines = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    n_left = sum(not isinstance(value, float) for value in rows[0].values())
    return textwrap.indent(Grid(list(rows[0]), lines, n_left).text(), "  ")


def _read_allowed(file: Path, catalogue: Catalogue) -> np.ndarray:
    """Return which items a file lists, [I] bool."""
    import numpy as np

    from gptrec_rl.data.sources.files import LINE_END

    allowed = np.zeros(catalogue.n_items, dtype=bool)
    try:
        lines = LINE_END.split(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--allowed {file} can't be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            allowed[_item(line, catalogue) - 1] = True
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
    return allowed


def _write_all(
    recommender: Recommender, interactions: Interactions, k: int, allowed: np.ndarray | None, out: Path
) -> None:
    """Write a row for each user and rank, a part at a time; the file is whole or isn't there.

    Who has fewer than K items left gets a shorter list.
    """
    from tqdm import tqdm

    from gptrec_rl.recommender import batches
    from gptrec_rl.reporting.table_files import TableWriter
    from gptrec_rl.runs.lists import Lists

    lists = Lists(recommender, interactions.catalogue, k, allowed)
    n_users = interactions.n_users
    with TableWriter(out) as writer, tqdm(total=n_users, unit="user", disable=None, leave=False) as bar:
        for users in batches(n_users, interactions.catalogue.n_items):
            writer.write(lists.of(interactions.histories.take(users), interactions.user_ids[users]))
            bar.update(len(users))
    shorter = f" ({lists.n_shorter:,} have fewer left, and shorter lists)" if lists.n_shorter else ""
    click.echo(f"wrote {writer.n_rows:,} rows: {k} items for each of {n_users:,} users{shorter}, {out}")
