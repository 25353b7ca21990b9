"""Times as texts, numbers or ISO 8601, as keys that sort exactly: no digit is lost on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
FRACTION = re.compile(r"(.*[T ](?:\d\d:\d\d:\d\d|\d{6}))[.,](\d+)(.*)", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[Decimal | int, str]


def number_key(text: str) -> Key:
    """Return a number's key.

    Raises:
        ValueError: it is no finite number.
    """
    if NUMBER.fullmatch(text.strip()) is None:
        raise ValueError(text)
    return Decimal(text.strip()), ""


def iso_key(text: str) -> Key:
    """Return the key of a date or time in ISO 8601: microseconds since 1970 (UTC where it doesn't say), and the rest.

    Fractions of a second may have any number of digits: those behind the sixth sort as text, without trailing zeros.

    Raises:
        ValueError: it is no such date.
    """
    found, beyond = FRACTION.fullmatch(text), ""
    if found is not None:
        head, digits, tail = found.groups()
        text, beyond = f"{head}.{digits[:6].ljust(6, '0')}{tail}", digits[6:].rstrip("0")
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1), beyond


def reader_of(first: str) -> tuple[Callable[[str], Key], str]:
    """Return how the times of a column are read whose first is this, and what a row of it has to be."""
    if NUMBER.fullmatch(first.strip()) is not None:
        return number_key, "a row whose time is a number"
    return iso_key, "a row with an ISO 8601 date"


def stamps_of(keys: Sequence[Key]) -> np.ndarray:
    """Return the numbers of keys, [N] int64 where all are whole and fit, else float64; digits beyond are cut off."""
    numbers = [number for number, _ in keys]
    if all(number == int(number) and -(2**63) <= number < 2**63 for number in numbers):
        return np.array([int(number) for number in numbers], dtype=np.int64)
    return np.array([float(number) for number in numbers])
