"""A CSV or Parquet file as columns of numbers and text, and the way back from a row to the line to be corrected.

A file is what its content says, whatever it is called. A cell means what its column is: a column of CSV is text, and
numbers only where all of it is written as numbers are; a column of Parquet has a type, which says what it is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptrec_rl.data.sources.files import (
    DAMAGED,
    LINE_END,
    ODD_QUOTATION_MARK,
    bad_line,
    csv_rows,
    decode,
    line_rows,
    numbers_of,
    open_packed,
    read_bytes,
)
from gptrec_rl.data.sources.times import reader_of, stamps_of
from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError

if TYPE_CHECKING:
    import pyarrow

PARQUET = b"PAR1"
ZIP = b"PK\x03\x04"
BLOCK_BYTES = 1 << 24
LARGEST_EXACT = 2**53
"""The whole numbers that a float tells from their neighbours are smaller than this."""
EXACT_BITS = {"halffloat": 11, "float": 24}
"""Of Arrow's smaller floats."""


@dataclass(frozen=True)
class TableFile:
    """An Arrow table and the file that it was read from: Parquet, or CSV, plain or packed (.gz, .xz)."""

    path: Path
    table: pyarrow.Table
    is_parquet: bool

    @classmethod
    def open(cls, path: Path) -> TableFile:
        """Read a file.

        Raises:
            InputError: it is missing or damaged, has no rows, or a row of another length than the header (names it).
        """
        magic = _magic(path)
        if magic == ZIP:
            raise InputError(f"{path} is a zip archive or a prepared data file, and no CSV or Parquet; unpack it")
        is_parquet = magic == PARQUET
        table = _read_parquet(path) if is_parquet else _read_csv(path)
        if table.num_rows == 0:
            raise InputError(f"{path} has no rows; give a table with some below its header")
        return cls(path, table, is_parquet)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.table.column_names)

    def codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's place among the distinct ids of a column, [N] int64, and these in order, [D] text.

        Raises:
            InputError: a row has no id there, one of several lines, or a float that is not the number that it was.
        """
        codes, values = self._distinct(name)
        n_bits = EXACT_BITS.get(str(self._column(name).type), 53)
        texts_of_values = [_text(value) for value in values]
        for place, (value, text) in enumerate(zip(values, texts_of_values, strict=True)):
            if (expected := _expected_of_id(value, text, n_bits)) is not None:
                raise self.bad_row(int((codes == place).argmax()), expected.format(column=repr(name)))
        texts, places = np.unique(text_array(texts_of_values), return_inverse=True)
        return places[codes], texts

    def times(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of numbers, or of dates in ISO 8601 (UTC where they don't say), twice.

        Returns:
            numbers that sort exactly, [N]: integers, dates and Parquet's timestamps stay whole, others become ranks;
            and when it was, [N], as in `Interactions.times`.

        Raises:
            InputError: a row has neither.
        """
        import pyarrow
        from pyarrow import types

        column = self._column(name)
        kind = column.type
        self._refuse(column.is_null().to_numpy(), f"a row with a time in column {name!r}")
        if types.is_floating(kind):
            floats = column.to_numpy().astype(np.float64)
            self._refuse(~np.isfinite(floats), "a row whose time is a number")
            return floats, floats
        if not (types.is_boolean(kind) or types.is_time(kind)):
            try:
                whole = np.asarray(column.cast(pyarrow.int64()).to_numpy())  # timestamps too, in their own unit
            except pyarrow.ArrowException:
                pass
            else:
                if not (types.is_timestamp(kind) or types.is_date(kind)):
                    return whole, whole
                microseconds = column.cast(pyarrow.timestamp("us"), safe=False).cast(pyarrow.int64())
                return whole, np.asarray(microseconds.to_numpy())
        codes, values = self._distinct(name)
        texts = [_text(value) for value in values]
        parse, expected = reader_of(texts[codes[0]])
        keys = []
        for place, text in enumerate(texts):
            try:
                keys.append(parse(text))
            except ValueError:
                raise self.bad_row(int((codes == place).argmax()), expected) from None
        rank = {key: place for place, key in enumerate(sorted(set(keys)))}
        return np.array([rank[key] for key in keys])[codes], stamps_of(keys)[codes]

    def texts(self, name: str, rows: np.ndarray) -> list[str]:
        """Return a column at some rows as text, empty where there is nothing."""
        return [_text(value) for value in self._column(name).take(rows).to_pylist()]

    def values(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return a column at some rows as numbers if that is what the column is, else as text.

        Raises:
            InputError: the column holds neither.
        """
        import pyarrow.compute
        from pyarrow import types

        column = self._column(name)
        kind, chosen = column.type, column.take(rows)
        if types.is_decimal(kind):
            return np.asarray(chosen.cast(pyarrow.float64(), safe=False).to_numpy())
        if types.is_floating(kind) or ((types.is_integer(kind) or types.is_boolean(kind)) and chosen.null_count == 0):
            return np.asarray(chosen.to_numpy())
        if types.is_boolean(kind):
            return np.asarray(chosen.cast(pyarrow.int8()).to_numpy())
        if types.is_integer(kind):  # with gaps: floats, where these hold the numbers
            ends: list[int | None] = list(pyarrow.compute.min_max(column).as_py().values())
            largest = max((abs(end) for end in ends if end is not None), default=0)
            if largest < LARGEST_EXACT:
                return np.asarray(chosen.to_numpy())
        texts = [_text(value) for value in chosen.to_pylist()]
        numbers = None if self.is_parquet else numbers_of(pyarrow.compute.unique(column).to_pylist(), texts)
        return text_array(texts) if numbers is None else numbers

    def require_whole_rows(self, timestamp: str | None, known: Mapping[str, Container[str]]) -> None:
        """Refuse a CSV in which a pair of stray quotation marks made one cell of several rows.

        Such a row is one of which a line is a row by itself: as many fields, and in some columns what can't stand there
        by chance. Of the last line that is also true where a cell of several lines is in the first column.

        Args:
            timestamp: the column of times; None: there is none.
            known: ids by the column that has them.

        Raises:
            InputError: names the line where the row starts.
        """
        if self.is_parquet or not _has_line_ends(self.table):
            return
        ids = {self.names.index(name): those for name, those in known.items()}
        is_time: Callable[[str], bool] | None = None
        for line, fields in csv_rows(self.path):
            broken = [place for place, field in enumerate(fields) if LINE_END.search(field)]
            if timestamp is not None and is_time is None and line > 1:
                is_time = _readable(reader_of(fields[self.names.index(timestamp)])[0])
            if not broken or line == 1:
                continue
            rows = line_rows(fields)
            are_rows = [self._is_row(row, timestamp, is_time, ids) for row in rows]
            own = {place: those for place, those in ids.items() if place <= broken[-1]}  # not of what follows the cell
            is_known = bool(own) and broken[-1] > 0 and all(rows[-1][place] in those for place, those in own.items())
            if any(are_rows[1:-1]) or (are_rows[-1] and (are_rows[0] or is_known)):
                raise bad_line(
                    self.path, line, ",".join(fields), "one row: whole rows stand between its quotation marks"
                )

    def _is_row(
        self,
        fields: list[str],
        timestamp: str | None,
        is_time: Callable[[str], bool] | None,
        ids: Mapping[int, Container[str]],
    ) -> bool:
        if len(fields) != len(self.names):
            return False
        if timestamp is not None and is_time is not None:
            return is_time(fields[self.names.index(timestamp)])
        return all(fields[place] in those for place, those in ids.items())

    def distinct_texts(self, name: str) -> set[str]:
        """Return the different cells of a column, as text."""
        return {_text(value) for value in self._distinct(name)[1]}

    def bad_row(self, row: int, expected: str) -> InputError:
        """Return the error for a row, by the line where it starts."""
        if self.is_parquet:
            shown = ",".join(str(value) for value in self.table.slice(row, 1).to_pylist()[0].values())
            return bad_line(self.path, row + 1, shown, expected, unit="row")
        for number, (line, fields) in enumerate(csv_rows(self.path)):
            if number == row + 1:  # the header is row 0
                return bad_line(self.path, line, ",".join(fields), expected)
        raise AssertionError(f"{self.path} has no row {row}")

    def _refuse(self, is_bad: np.ndarray, expected: str) -> None:
        if is_bad.any():
            raise self.bad_row(int(is_bad.argmax()), expected)

    def _distinct(self, name: str) -> tuple[np.ndarray, list[Any]]:
        """Return each row's place among the distinct values of a column, [N] int64, and these, None for a missing."""
        encoded = self._column(name).combine_chunks().dictionary_encode("encode")
        return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()

    def _column(self, name: str) -> pyarrow.ChunkedArray:
        """Return a column of numbers, times or text, the latter with 64-bit offsets: there may be more than 2 GiB."""
        import pyarrow
        from pyarrow import types

        column = self.table[name]
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if types.is_primitive(kind) or types.is_decimal(kind):
            return column.cast(kind)
        try:
            return column.cast(pyarrow.large_string())
        except pyarrow.ArrowException:
            raise InputError(
                f"{self.path}: column {name!r} has type {kind}, neither numbers nor text; convert it or leave it out"
            ) from None


def _text(value: Any) -> str:
    """Return a cell as text: whole numbers without a point, whatever type holds them; nothing for a missing value."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def _expected_of_id(value: Any, text: str, n_bits: int) -> str | None:
    """Return what a row has to be whose id is no id; None where it is one."""
    if not text:
        return "a row with a value in column {column}"
    if LINE_END.search(text):
        return "a row whose column {column} is one line; is a quotation mark too many?"
    if isinstance(value, float) and not abs(value) < 2**n_bits:
        return f"a row whose column {{column}} is below 2^{n_bits}, as such floats have to be that are ids"
    if isinstance(value, float | Decimal) and value != int(value):
        return "a row with a whole number in column {column}, as ids have to be"
    return None


def _readable(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def is_readable(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return is_readable


def _magic(path: Path) -> bytes:
    if path.is_dir():
        return PARQUET  # a folder of parts, as Spark writes it
    try:
        with open_packed(path) as stream:
            return stream.read(4)
    except DAMAGED as error:
        raise InputError(f"{path} can't be read ({error}); give a complete file") from None


def _read_parquet(path: Path) -> pyarrow.Table:
    import pyarrow.parquet

    try:
        if path.is_dir():
            return pyarrow.parquet.read_table(path)
        with open_packed(path) as stream:
            return pyarrow.parquet.read_table(stream)
    except (*DAMAGED, pyarrow.ArrowException) as error:
        raise InputError(f"{path} can't be read as Parquet ({error}); give a complete file") from None


def _read_csv(path: Path) -> pyarrow.Table:
    import pyarrow.csv

    content = read_bytes(path)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    reading = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES)
    try:
        names = pyarrow.csv.open_csv(io.BytesIO(content), reading, parsing).schema.names
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"{path}, line 1: column {min(repeated)!r} occurs more than once; give each another name")
        if broken := list(filter(LINE_END.search, names)):
            raise InputError(
                f"{path}, line 1: column {broken[0][:80]!r} is several lines; is a quotation mark too many?"
            )
        as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.large_string()))
        table = pyarrow.csv.read_csv(io.BytesIO(content), reading, parsing, as_text)
    except pyarrow.ArrowInvalid as error:
        decode(content, path, "utf-8-sig")
        rows = csv_rows(path)
        _, header = next(rows, (1, []))
        for line, fields in rows:
            if len(fields) != len(header):
                raise bad_line(
                    path, line, ",".join(fields), f"a row of {len(header)} fields ({','.join(header)})"
                ) from None
        raise InputError(f"{path} can't be read as CSV ({error}); give a comma-separated file with a header") from None
    if _has_line_ends(table) or ODD_QUOTATION_MARK.search(content):
        for _ in csv_rows(path):
            pass  # refuses what Arrow lets pass: text behind a closing quotation mark, and one without end
    return table


def _has_line_ends(table: pyarrow.Table) -> bool:
    from pyarrow import compute

    return any(compute.any(compute.match_substring_regex(column, "[\r\n]")).as_py() for column in table.columns)
