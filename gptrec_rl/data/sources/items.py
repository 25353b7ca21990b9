"""A table that describes items: CSV or Parquet, with a column of ids."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.data.sources.files import split_genres
from gptrec_rl.data.sources.table_file import TableFile
from gptrec_rl.errors import InputError


def read_catalogue(
    path: Path,
    id_column: str,
    title_column: str = "title",
    genres_column: str = "genres",
    log_ids: Iterable[str] = (),
) -> Catalogue:
    """Read an item table: the id, and optionally title, genres (`|`-separated) and further columns.

    Args:
        path: of the table.
        id_column: what it calls the id.
        title_column: what it calls the title.
        genres_column: what it calls the genres.
        log_ids: ids that a log has, by which rows that stray quotation marks have swallowed are found.

    Raises:
        InputError: the id column is missing, an id is, or a row has too few or too many fields (names the line).
    """
    file = TableFile.open(path)
    if id_column not in file.names:
        raise InputError(
            f"{path}, line 1: no column {id_column!r} among {file.names}; name the columns in the first line"
        )
    file.require_whole_rows(None, {id_column: set(log_ids)})
    codes, distinct = file.codes(id_column)
    item_ids, rows = distinct[codes], np.arange(len(codes))
    titles = file.texts(title_column, rows) if title_column in file.names else item_ids.tolist()
    genres = file.texts(genres_column, rows) if genres_column in file.names else [""] * len(rows)
    named = (id_column, title_column, genres_column)
    further = {name: file.values(name, rows) for name in file.names if name not in named}
    return Catalogue(item_ids, np.array(titles, dtype=item_ids.dtype), *genre_matrix(split_genres(genres)), further)
