"""MovieLens-1M, from the sequence file that sequential-recommendation papers share, or from GroupLens' own zip.

The two hold the same 999,611 interactions, but order equal timestamps differently: they have different hashes, and
their figures never stand in one table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptrec_rl.data.interactions import Interactions
from gptrec_rl.data.sources.files import bad_line, integer_rows, read_catalogue, read_text, to_histories
from gptrec_rl.errors import InputError


def read_sequences(folder: Path) -> Interactions:
    """Read `interactions.txt` (`user item` a line, oldest first) and `items.csv`, plain or packed (.xz, .gz).

    Raises:
        InputError: a file is missing, a line is malformed, or an item is not in `items.csv`.
    """
    catalogue = read_catalogue(_find(folder, "items.csv"))
    path = _find(folder, "interactions.txt")
    text = read_text(path)
    numbers = integer_rows(text, path, None, ("user", "item"))
    internal = {str(item_id): place + 1 for place, item_id in enumerate(catalogue.item_ids)}
    external, codes = np.unique(numbers[:, 1], return_inverse=True)
    items = np.array([internal.get(str(item_id), 0) for item_id in external], dtype=np.int32)[codes]
    if not items.all():
        line = int(items.argmin())
        raise bad_line(path, line + 1, text.splitlines()[line], "about an item of items.csv")
    user_ids, users = np.unique(numbers[:, 0], return_inverse=True)
    histories = to_histories(users, items, None, len(user_ids))
    return Interactions(catalogue, np.array([str(user) for user in user_ids]), histories, "ml-1m")


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.xz", folder / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder} holds no {name} (plain, .xz or .gz); give the folder of the sequence files")
