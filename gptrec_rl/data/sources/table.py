"""Anybody's log as CSV or Parquet: columns user, item, timestamp, and optionally title, genres and further ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.data.sources.files import split_genres
from gptrec_rl.data.sources.items import read_catalogue
from gptrec_rl.data.sources.log import Keep, Log, described
from gptrec_rl.data.sources.table_file import TableFile
from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError


@dataclass(frozen=True)
class Columns:
    """What the file calls its columns; title and genres may be absent."""

    user: str = "user"
    item: str = "item"
    timestamp: str = "timestamp"
    title: str = "title"
    genres: str = "genres"


@dataclass(frozen=True)
class Filters:
    """What is kept: which of repeated rows; users and items with at least so many rows; items without genres."""

    keep: Keep = "last"
    min_user_interactions: int = 2
    min_item_interactions: int = 1
    drop_ungenred: bool = False


@dataclass(frozen=True)
class PreparationReport:
    """How many rows there were, how many of them repeated a user and item, and what the filters dropped."""

    rows: int
    repeats_dropped: int
    users_dropped: int
    items_dropped: int


def read_table(
    path: Path, items_path: Path | None = None, columns: Columns | None = None, filters: Filters | None = None
) -> tuple[Interactions, PreparationReport]:
    """Read a log of interactions; equal timestamps keep the order of the file.

    Timestamps are numbers or ISO 8601 dates. Columns beyond the named ones describe items: each item has the value
    of its first row.

    Args:
        path: Parquet or CSV, plain or packed with gzip or xz, whatever it is called.
        items_path: a table that describes the items in place of the log: item, title, genres and further columns.
        columns: names of the columns.
        filters: what is kept.

    Raises:
        InputError: a column is missing, a line malformed (names file and line), or nothing is left.
    """
    columns, filters = columns or Columns(), filters or Filters()
    file = TableFile.open(path)
    for option, name in (("user", columns.user), ("item", columns.item), ("timestamp", columns.timestamp)):
        if name not in file.names:
            raise InputError(f"{path}, line 1: no column {name!r} among {file.names}; name it with --{option}-column")
    file.require_whole_rows(
        columns.timestamp, {name: file.distinct_texts(name) for name in (columns.user, columns.item)}
    )
    users, user_ids = file.codes(columns.user)
    items, item_ids = file.codes(columns.item)
    log = Log(user_ids, item_ids, users, items, *file.times(columns.timestamp))
    catalogue = (
        _described_by_log(file, log, columns) if items_path is None else _described(items_path, file, log, columns)
    )
    unrepeated = log.without_repeats(filters.keep)
    kept = filtered(unrepeated, catalogue, filters)
    report = PreparationReport(
        rows=len(log),
        repeats_dropped=len(log) - len(unrepeated),
        users_dropped=len(log.user_ids) - len(kept.user_ids),
        items_dropped=len(log.item_ids) - len(kept.item_ids),
    )
    return kept.interactions(catalogue, path.name.split(".")[0]), report


def filtered(log: Log, catalogue: Catalogue, filters: Filters) -> Log:
    """Drop items and users until all that are left have enough interactions with what is left.

    Args:
        log: the interactions.
        catalogue: the log's items, in its order.
        filters: the least numbers, and whether items without genres go first.

    Raises:
        InputError: nothing is left.
    """
    if filters.drop_ungenred:
        log = log.where(np.any(catalogue.genres, axis=1)[log.items])
    while True:
        enough_for_item = log.item_counts >= filters.min_item_interactions
        enough_for_user = log.user_counts >= filters.min_user_interactions
        if enough_for_item.all() and enough_for_user.all():
            return log
        log = log.where(enough_for_item[log.items] & enough_for_user[log.users])


def _described_by_log(file: TableFile, log: Log, columns: Columns) -> Catalogue:
    first_rows = np.unique(log.items, return_index=True)[1]
    titles = text_array(file.texts(columns.title, first_rows)) if columns.title in file.names else log.item_ids
    genres = file.texts(columns.genres, first_rows) if columns.genres in file.names else [""] * len(first_rows)
    named = (columns.user, columns.item, columns.timestamp, columns.title, columns.genres)
    further = {name: file.values(name, first_rows) for name in file.names if name not in named}
    return Catalogue(log.item_ids, titles, *genre_matrix(split_genres(genres)), columns=further)


def _described(items_path: Path, file: TableFile, log: Log, columns: Columns) -> Catalogue:
    catalogue = read_catalogue(items_path, columns.item, columns.title, columns.genres, log.item_ids.tolist())
    is_unknown = ~np.isin(log.item_ids, catalogue.item_ids)
    if is_unknown.any():
        raise file.bad_row(int(is_unknown[log.items].argmax()), f"about an item of {items_path}")
    return described(log.item_ids, catalogue)
