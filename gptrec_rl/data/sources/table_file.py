"""A CSV or Parquet file as columns of numbers and text, and the way back from a row to the line to be corrected."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptrec_rl.data.sources.files import bad_line, csv_rows, read_bytes, typed
from gptrec_rl.errors import InputError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class TableFile:
    """An Arrow table and the file that it was read from: Parquet if so named, else CSV (plain, .gz or .xz)."""

    path: Path
    table: pyarrow.Table

    @classmethod
    def open(cls, path: Path) -> TableFile:
        """Read a file.

        Raises:
            InputError: it is missing or damaged, has no rows, or a row of another length than the header (names it).
        """
        table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        if table.num_rows == 0:
            raise InputError(f"{path} has no rows; give a log of interactions")
        return cls(path, table)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.table.column_names)

    def codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's place among the distinct texts of a column, [N] int64, and these in order, [D] str.

        Raises:
            InputError: a row has no text there.
        """
        import pyarrow.compute

        texts = pyarrow.compute.fill_null(self._as_text(name), "").combine_chunks().dictionary_encode()
        distinct = np.array(texts.dictionary.to_pylist(), dtype=np.str_)
        codes = texts.indices.to_numpy()
        is_empty = (distinct == "")[codes]
        if is_empty.any():
            raise self.bad_row(int(is_empty.argmax()), f"a row with a value in column {name!r}")
        order = np.argsort(distinct)
        return np.argsort(order)[codes], distinct[order]

    def times(self, name: str) -> np.ndarray:
        """Return a column of numbers, or of dates in ISO 8601 (UTC where they don't say), as numbers that sort, [N].

        Raises:
            InputError: a row has neither.
        """
        import pyarrow

        try:
            values = self.table[name].cast(pyarrow.int64()).to_numpy()  # timestamps too, in their own unit
        except pyarrow.ArrowException:
            values = self._parsed_times(self._as_text(name).to_pylist())
        missing = ~np.isfinite(values)
        if missing.any():
            raise self.bad_row(int(missing.argmax()), f"a row with a time in column {name!r}")
        return np.asarray(values)

    def texts(self, name: str, rows: np.ndarray) -> list[str]:
        """Return a column at some rows as text, empty where there is nothing."""
        return [text or "" for text in self._as_text(name).take(rows).to_pylist()]

    def values(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a column at some rows as numbers if that is what they are, else as text.

        Raises:
            InputError: the column holds neither.
        """
        import pyarrow

        column = self.table[name]
        kind = column.type
        if any(is_numbers(kind) for is_numbers in (pyarrow.types.is_integer, pyarrow.types.is_floating)):
            return np.asarray(column.take(rows).to_numpy())
        return typed(self.texts(name, rows))

    def bad_row(self, row: int, expected: str) -> InputError:
        """Return the error for a row, by the line where it starts."""
        if self.path.suffix == ".parquet":
            shown = ",".join(str(value) for value in self.table.slice(row, 1).to_pylist()[0].values())
            return bad_line(self.path, row + 1, shown, expected, unit="row")
        for number, (line, fields) in enumerate(csv_rows(self.path)):
            if number == row + 1:  # the header is row 0
                return bad_line(self.path, line, ",".join(fields), expected)
        raise AssertionError(f"{self.path} has no row {row}")

    def _as_text(self, name: str) -> pyarrow.ChunkedArray:
        import pyarrow

        try:
            return self.table[name].cast(pyarrow.string())
        except pyarrow.ArrowException:
            kind = self.table[name].type
            raise InputError(
                f"{self.path}: column {name!r} has type {kind}, neither numbers nor text; convert it or leave it out"
            ) from None

    def _parsed_times(self, texts: list[str | None]) -> np.ndarray:
        parse = _number if _is_number(texts[0]) else _iso_seconds
        times = np.empty(len(texts))
        for row, text in enumerate(texts):
            try:
                times[row] = parse(text or "")
            except ValueError:
                expected = "a row whose time is a number" if parse is _number else "a row with an ISO 8601 date"
                raise self.bad_row(row, expected) from None
        return times


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _iso_seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_number(text: str | None) -> bool:
    try:
        _number(text or "")
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> pyarrow.Table:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} can't be read as Parquet ({error}); give a complete file") from None


def _read_csv(path: Path) -> pyarrow.Table:
    import pyarrow.csv

    content = read_bytes(path)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        names = pyarrow.csv.open_csv(io.BytesIO(content), parse_options=parsing).schema.names
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"{path}, line 1: column {min(repeated)!r} occurs more than once; give each another name")
        as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string()))
        return pyarrow.csv.read_csv(io.BytesIO(content), parse_options=parsing, convert_options=as_text)
    except pyarrow.ArrowInvalid as error:
        rows = csv_rows(path)
        _, header = next(rows, (1, []))
        for line, fields in rows:
            if len(fields) != len(header):
                raise bad_line(path, line, ",".join(fields), f"a row of {len(header)} fields") from None
        raise InputError(f"{path} can't be read as CSV ({error}); give a comma-separated file with a header") from None
