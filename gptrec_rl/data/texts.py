"""Columns of text: arrays whose cells take the room that they need, and the two plain arrays that a file holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from gptrec_rl.errors import InputError

N_COMPARED = 10_000


def text_array(values: Iterable[str]) -> np.ndarray:
    """Return texts as an array, [N] StringDType: one long text costs nothing for the others.

    Raises:
        InputError: a text is none in UTF-8 (it holds half of a surrogate pair).
    """
    texts = values if isinstance(values, np.ndarray) else list(values)
    try:
        return np.asarray(texts, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object[:80]!r} is no text that UTF-8 can hold ({error.reason}); correct it") from None


def as_texts(array: np.ndarray) -> np.ndarray:
    """Turn an array of texts of any kind into one of `text_array`; others are returned as they are."""
    return text_array(array) if array.dtype.kind in "UO" else array


def is_text(array: np.ndarray) -> bool:
    """Say whether an array holds texts."""
    return array.dtype.kind in "UT"


def packed(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all texts behind one another in UTF-8, [bytes] uint8, and where each starts and ends, [N + 1] int64."""
    cells = [text.encode() for text in texts.tolist()]
    offsets = np.zeros(len(cells) + 1, dtype=np.int64)
    np.cumsum([len(cell) for cell in cells], out=offsets[1:])
    return np.frombuffer(b"".join(cells), dtype=np.uint8), offsets


def unpacked(content: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the texts that were `packed`, [N] StringDType.

    Raises:
        ValueError: the two don't belong together, or a text is not UTF-8.
    """
    whole = content.tobytes()
    fits = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) > 0 and content.dtype == np.uint8
    if not fits or offsets[0] != 0 or offsets[-1] != len(whole) or (np.diff(offsets) < 0).any():
        raise ValueError("texts and their offsets don't belong together")
    bounds = offsets.tolist()
    return text_array([whole[a:b].decode() for a, b in pairwise(bounds)])


def examples(wanted: str, texts: np.ndarray) -> str:
    """Return up to three of the texts, the nearest to the wanted one where any is near, for an error message."""
    near = difflib.get_close_matches(wanted, texts[:N_COMPARED].tolist(), n=3)
    return ", ".join(f"'{text}'" for text in near or texts[:3].tolist())
