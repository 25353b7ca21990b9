"""Tables of many rows as files, CSV or Parquet: lists for everybody, and the metrics of each user."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import pandas as pd

from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable

if TYPE_CHECKING:
    import pyarrow.parquet

SUFFIXES = (".csv", ".parquet")
ROWS_TOGETHER = 2**17
"""Rows that are written at once, a row group of Parquet."""


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


def write_per_user(table: EvaluationTable, path: Path) -> None:
    """Write one row a user, `user` (external id) and the metrics, as CSV or Parquet by the path's suffix.

    Raises:
        InputError: the suffix is neither .csv nor .parquet.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"per-user file {path} has suffix {path.suffix!r}; name it .csv or .parquet")
    with TableWriter(path) as out:
        out.write(pd.DataFrame({"user": table.user_ids, **table.per_user}))
