"""What the sources share: reading plain or packed text, naming a bad line, and turning a log into histories."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.data.histories import Histories
from gptrec_rl.errors import InputError

OPENERS: Mapping[str, Callable[[Path], object]] = {".xz": lzma.open, ".gz": gzip.open}
DAMAGED = (lzma.LZMAError, zlib.error, EOFError, OSError)


def bad_line(path: Path, line: int, text: str, expected: str) -> InputError:
    """Return the error for a malformed line; lines count from 1."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InputError(f"{path}, line {line}: {shown!r} is not {expected}; correct or remove the line")


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking .xz and .gz."""
    return cast("IO[bytes]", OPENERS.get(path.suffix, lambda plain: plain.open("rb"))(path))


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


def integer_rows(text: str, path: Path, separator: str | None, names: Sequence[str]) -> np.ndarray:
    """Parse lines of integers, [number of lines, number of names] int64; ``separator`` None means blanks.

    Raises:
        InputError: names the first line that does not have exactly these fields, as whole numbers.
    """
    lines = text.splitlines()
    if not lines:
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


def read_catalogue(path: Path) -> Catalogue:
    """Read an item table, CSV with a header: item_id, title, genres (`|`-separated) and any further columns.

    Raises:
        InputError: a column is missing, or a row has too few or too many fields (names the line).
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    header = next(reader, [])
    missing = [name for name in ("item_id", "title", "genres") if name not in header]
    if missing:
        raise InputError(f"{path}, line 1: no column {missing[0]!r} among {header}; name the columns in the first line")
    rows = []
    for row in reader:
        if len(row) != len(header):
            raise bad_line(path, reader.line_num, ",".join(row), f"a row of {len(header)} columns ({','.join(header)})")
        rows.append(row)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    item_ids, titles, genres = columns.pop("item_id"), columns.pop("title"), columns.pop("genres")
    further = {name: typed(values) for name, values in columns.items()}
    return Catalogue(np.array(item_ids), np.array(titles), *genre_matrix(split_genres(genres)), columns=further)


def split_genres(cells: Sequence[str]) -> list[list[str]]:
    """Split `A|B` cells into names, each once."""
    return [list(dict.fromkeys(name.strip() for name in cell.split("|") if name.strip())) for cell in cells]


def typed(values: Sequence[str]) -> np.ndarray:
    """Turn a text column into int64 where all are whole numbers, else float64 where all are numbers, else str."""
    for kind in (np.int64, np.float64):
        try:
            return np.array(values).astype(kind)
        except ValueError:
            continue
    return np.array(values, dtype=np.str_)


def to_histories(users: np.ndarray, items: np.ndarray, times: np.ndarray | None, n_users: int) -> Histories:
    """Group a log by user and order it by time; equal times keep the order of the log.

    Args:
        users: row of the user in 0..U-1, [N].
        items: internal item ids in 1..I, [N].
        times: anything that sorts, [N]; None when the log is in order already.
        n_users: U.
    """
    order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
    offsets = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=n_users), out=offsets[1:])
    return Histories(items[order].astype(np.int32), offsets)
