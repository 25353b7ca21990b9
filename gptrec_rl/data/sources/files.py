"""What the sources share: reading plain or packed text, naming a bad line, and the table of items."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from gptrec_rl.errors import InputError

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
NO_GENRES = "(no genres listed)"
LARGEST_FIELD = 2**31 - 1
LINE_END = re.compile(r"\r\n|\r|\n")
ODD_QUOTATION_MARK = re.compile(rb'[^,\n\r"]"[^,\n\r"]')
"""One with text on both of its sides."""
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
WRITTEN = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
DAMAGED = (lzma.LZMAError, zlib.error, EOFError, OSError)


def bad_line(path: Path, line: int, text: str, expected: str, unit: str = "line") -> InputError:
    """Return the error for a malformed line (or row, in a file without lines); they count from 1."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InputError(f"{path}, {unit} {line}: {shown!r} is not {expected}; correct or remove the {unit}")


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked if it is gzip or xz: its first bytes say so, whatever it is called."""
    with path.open("rb") as stream:
        magic = stream.read(6)
    if magic == XZ:
        return lzma.open(path)
    return cast("IO[bytes]", gzip.open(path)) if magic.startswith(GZIP) else path.open("rb")


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


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row of a CSV starts, and the row's fields; blank lines are skipped.

    A cell may be as long as it likes, and of several lines if its quotation marks enclose all of it.

    Raises:
        InputError: the file can't be read, or a field doesn't end where its quotation mark does.
    """
    csv.field_size_limit(LARGEST_FIELD)
    lines = list(io.StringIO(read_text(path, "utf-8-sig"), newline=""))
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: {error}; is a quotation mark missing or one too many?") from None


def line_rows(fields: Sequence[str]) -> list[list[str]]:
    """Take the lines of a row with cells of several lines for rows: the fields of each."""
    whole = ",".join(field if LINE_END.search(field) else field.replace(",", " ") for field in fields)
    return [line.split(",") for line in LINE_END.split(whole)]


def split_genres(cells: Sequence[str]) -> list[list[str]]:
    """Split `A|B` cells into names, each once; MovieLens' `(no genres listed)` is none."""
    names = ((name.strip() for name in cell.split("|")) for cell in cells)
    return [list(dict.fromkeys(name for name in each if name not in ("", NO_GENRES))) for each in names]


def numbers_of(column: Sequence[str], values: Sequence[str]) -> np.ndarray | None:
    """Turn some values of a text column into numbers, [N], if every cell of it is written as numbers are.

    That is `7`, `-2.50` or what Python prints of a float, `1e-05`; not `007`, `1_000`, `+1` or more digits than a
    number holds. Whole numbers are int64; with others, or with empty cells (NaN), they are float64.

    Returns:
        None if a cell is something else, or all are empty.
    """
    cells = [cell for cell in column if cell]
    if cells and len(cells) == len(column) and all(_is_whole(cell) for cell in cells):
        return np.array([int(value) for value in values], dtype=np.int64)
    if not cells or not all(_is_float(cell) for cell in cells):
        return None
    return np.array([float(value or "nan") for value in values])


def _is_whole(cell: str) -> bool:
    return WHOLE.fullmatch(cell) is not None and abs(int(cell)) < 2**63


def _is_float(cell: str) -> bool:
    if PLAIN.fullmatch(cell) is not None:
        return sum(character.isdecimal() for character in cell.lstrip("-0.")) <= 15
    return WRITTEN.fullmatch(cell) is not None and repr(float(cell)) == cell
