"""Data files of format 1, which held texts in cells as wide as the longest; they are read and not written any more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gptrec_rl.data.texts import as_texts
from gptrec_rl.errors import InputError


def from_format_1(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays with their texts as of today, and what the catalogue's hash was when models were saved by it.

    Raises:
        InputError: the content is not what its hash says.
        KeyError: an array is missing.
    """
    genre_names = arrays["genre_names"]
    genres = np.unpackbits(arrays["genres"], axis=1, count=len(genre_names)).astype(bool)
    described = {"item_ids": arrays["item_ids"], "titles": arrays["titles"], "genre_names": genre_names}
    columns = {name: array for name, array in arrays.items() if name.startswith("column:")}
    catalogue = _hash({**described, "genres": genres, **columns})
    histories = {name: arrays[name] for name in ("user_ids", "values", "offsets")}
    whole = _hash({"catalogue": np.array(catalogue), **histories})
    if whole != str(arrays["hash"]):
        raise InputError(f"data file {path} was altered: its content is not what its hash says; prepare it again")
    return {name: as_texts(array) for name, array in arrays.items() if array.ndim} | {"name": arrays["name"]}, catalogue


def _hash(named_arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(named_arrays):
        array = np.ascontiguousarray(named_arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
