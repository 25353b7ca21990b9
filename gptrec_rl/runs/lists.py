"""Lists for everybody as a table, made and written a part at a time: memory doesn't grow with the users."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gptrec_rl.models.recommender import Slates

if TYPE_CHECKING:
    import pyarrow.parquet

    from gptrec_rl.data import Catalogue, Histories
    from gptrec_rl.models.recommender import Recommender

ROWS_TOGETHER = 2**17
"""Rows that are written at once, a row group of Parquet."""


class Lists:
    """Makes tables of lists: user, rank, item, title, genres, score.

    Args:
        recommender: makes the lists.
        catalogue: says what the items are.
        k: K; who has fewer items left gets as many as there are.
        allowed: [I] bool; None allows all.

    Attributes:
        n_shorter: users whose list is shorter, so far.
    """

    COLUMNS = ("user", "rank", "item", "title", "genres", "score")

    def __init__(self, recommender: Recommender, catalogue: Catalogue, k: int, allowed: np.ndarray | None) -> None:
        self._recommender = recommender
        self._k = k
        self._allowed = np.ones(catalogue.n_items, dtype=bool) if allowed is None else allowed
        genres = ["|".join(catalogue.genres_of(item)) for item in range(1, catalogue.n_items + 1)]
        self._of_items = pd.DataFrame(
            {
                "item": catalogue.item_ids.astype(object),
                "title": catalogue.titles.astype(object),
                "genres": np.array(genres, dtype=object),
            }
        )
        self.n_shorter = 0

    def of(self, histories: Histories, user_ids: np.ndarray) -> pd.DataFrame:
        """Return the table of some users' lists, in their order."""
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        n_left = self._allowed.sum() - np.bincount(rows[self._allowed[histories.values - 1]], minlength=len(histories))
        lengths = np.minimum(n_left, self._k)
        self.n_shorter += int((lengths < self._k).sum())
        parts = [
            self._table(histories, user_ids, np.flatnonzero(lengths == length), length)
            for length in np.unique(lengths).tolist()
        ]
        return pd.concat(parts).sort_index(kind="stable") if len(parts) > 1 else parts[0]

    def _table(self, histories: Histories, user_ids: np.ndarray, users: np.ndarray, k: int) -> pd.DataFrame:
        """Return the lists of those users who have K items left, by their places."""
        if k:
            slates = self._recommender.recommend(histories.take(users), k, self._allowed)
        else:
            slates = Slates(np.zeros((len(users), 0), dtype=np.int64), np.zeros((len(users), 0), dtype=np.float32))
        table = self._of_items.take(slates.items.ravel() - 1)
        table.index = pd.Index(np.repeat(users, k))
        table.insert(0, "rank", np.tile(np.arange(1, k + 1), len(users)))
        table.insert(0, "user", np.repeat(user_ids[users].astype(object), k))
        table["score"] = slates.scores.ravel().astype(np.float64)
        return table


class TableWriter:
    """Context manager that writes a table in parts, as CSV or Parquet by the path's suffix.

    The file is at its place when the context has ended well, and otherwise isn't there, or as it was.

    Attributes:
        n_rows: rows so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._parts: list[pd.DataFrame] = []
        self._n_waiting = 0
        self._parquet: pyarrow.parquet.ParquetWriter | None = None
        self._csv: IO[str] | None = None
        self.n_rows = 0

    def __enter__(self) -> TableWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, part: pd.DataFrame) -> None:
        """Add rows."""
        self._parts.append(part)
        self._n_waiting += len(part)
        self.n_rows += len(part)
        if self._n_waiting >= ROWS_TOGETHER:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            try:
                if error is None and self._parts:
                    self._flush()
            finally:
                for file in (self._csv, self._parquet):
                    if file is not None:
                        file.close()
            if error is None:
                os.replace(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet

        rows: Any = pd.concat(self._parts)
        self._parts, self._n_waiting = [], 0
        if self._path.suffix.lower() == ".csv":
            is_first = self._csv is None
            self._csv = self._csv or self._temporary.open("w", encoding="utf-8", newline="")
            rows.to_csv(self._csv, index=False, header=is_first)
            return
        table = pyarrow.Table.from_pandas(rows, preserve_index=False)
        if self._parquet is None:
            self._parquet = pyarrow.parquet.ParquetWriter(self._temporary, table.schema)
        self._parquet.write_table(table.cast(self._parquet.schema))
