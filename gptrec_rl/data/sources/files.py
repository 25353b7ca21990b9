"""What the sources share: reading plain or packed text, naming a bad line, and the table of items."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.errors import InputError

DAMAGED = (lzma.LZMAError, zlib.error, EOFError, OSError)


def bad_line(path: Path, line: int, text: str, expected: str, unit: str = "line") -> InputError:
    """Return the error for a malformed line (or row, in a file without lines); they count from 1."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InputError(f"{path}, {unit} {line}: {shown!r} is not {expected}; correct or remove the {unit}")


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking .xz and .gz."""
    if path.suffix == ".xz":
        return lzma.open(path)
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_bytes(path: Path) -> bytes:
    """Read a whole file, unpacking .xz and .gz.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with open_packed(path) as stream:
            return stream.read()
    except DAMAGED as error:
        raise InputError(f"{path} can't be read ({error}); give a complete file") from None


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a whole text file, unpacking .xz and .gz.

    Raises:
        InputError: the file is missing, damaged, or not in this encoding (names the line).
    """
    return decode(read_bytes(path), path, encoding)


def decode(content: bytes, path: Path, encoding: str) -> str:
    """Decode a file's content.

    Raises:
        InputError: names the first line that is not in this encoding.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not {encoding} text ({error.reason}); save it as {encoding}") from None


def split_lines(text: str) -> list[str]:
    """Split at line feeds alone: titles may hold other characters that `str.splitlines` splits at."""
    return text.rstrip("\n").split("\n")


def integer_rows(text: str, path: Path, separator: str | None, names: Sequence[str]) -> np.ndarray:
    """Parse lines of integers, [number of lines, number of names] int64; ``separator`` None means blanks.

    Raises:
        InputError: names the first line that does not have exactly these fields, as whole numbers.
    """
    lines = split_lines(text)
    if lines == [""]:
        raise InputError(f"{path} has no lines; give the complete file")
    fields_in_all = text if separator is None else text.replace(separator, " ")
    try:
        numbers = np.loadtxt(io.StringIO(fields_in_all), dtype=np.int64, comments=None, ndmin=2)
    except ValueError:
        numbers = np.zeros((0, 0), dtype=np.int64)
    if numbers.shape == (len(lines), len(names)):
        return numbers
    expected = f"`{(separator or ' ').join(names)}` in whole numbers"
    for number, line in enumerate(lines, start=1):
        fields = line.split(separator)
        if len(fields) != len(names) or not all(field.strip().isdecimal() for field in fields):
            raise bad_line(path, number, line, expected)
    raise InputError(f"{path} is not lines of {expected}; give the file as it was published")


def read_catalogue(path: Path, id_column: str, title_column: str = "title", genres_column: str = "genres") -> Catalogue:
    """Read an item table, CSV with a header: the id, and optionally title, genres (`|`-separated) and further columns.

    Raises:
        InputError: the id column is missing, or a row has too few or too many fields (names the line).
    """
    lines_and_rows = list(csv_rows(path))
    header = lines_and_rows[0][1] if lines_and_rows else []
    if id_column not in header:
        raise InputError(f"{path}, line 1: no column {id_column!r} among {header}; name the columns in the first line")
    for line, row in lines_and_rows:
        if len(row) != len(header):
            raise bad_line(path, line, ",".join(row), f"a row of {len(header)} fields ({','.join(header)})")
    rows = [row for _, row in lines_and_rows[1:]]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    item_ids = columns.pop(id_column)
    titles, genres = columns.pop(title_column, item_ids), columns.pop(genres_column, [""] * len(rows))
    further = {name: typed(values) for name, values in columns.items()}
    return Catalogue(np.array(item_ids), np.array(titles), *genre_matrix(split_genres(genres)), columns=further)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row of a CSV starts, and the row's fields; blank lines are skipped.

    Raises:
        InputError: the file can't be read, or a field never ends (names the line).
    """
    reader = csv.reader(io.StringIO(read_text(path, "utf-8-sig"), newline=""))
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: {error}; is a quotation mark missing?") from None


def split_genres(cells: Sequence[str]) -> list[list[str]]:
    """Split `A|B` cells into names, each once."""
    return [list(dict.fromkeys(name.strip() for name in cell.split("|") if name.strip())) for cell in cells]


def typed(values: Sequence[str]) -> np.ndarray:
    """Turn a text column into int64 if all are whole numbers, else float64 if all are numbers or empty, else str."""
    texts = np.array(values, dtype=np.str_)
    for candidate, kind in ((texts, np.int64), (np.where(texts == "", "nan", texts), np.float64)):
        try:
            return candidate.astype(kind)
        except (ValueError, OverflowError):
            continue
    return texts
