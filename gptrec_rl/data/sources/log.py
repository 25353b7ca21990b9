"""A log of who had what when, and the steps that the recipes for preparing one are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gptrec_rl.data.catalogue import Catalogue
from gptrec_rl.data.histories import Histories
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.errors import InputError

Keep = Literal["first", "last"]


@dataclass(frozen=True)
class Log:
    """N rows, in any order; rows of one user and time are in the order in which they happened.

    Attributes:
        user_ids: external user ids, [U] str.
        item_ids: external item ids, [I] str.
        users: place in `user_ids`, [N] integer.
        items: place in `item_ids`, [N] integer.
        times: anything that sorts, [N].
        stamps: when it was, [N], as in `Interactions.times`; None: nobody knows.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    stamps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def user_counts(self) -> np.ndarray:
        """Rows of each user, [U] int64."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    @property
    def item_counts(self) -> np.ndarray:
        """Rows of each item, [I] int64."""
        return np.bincount(self.items, minlength=len(self.item_ids))

    def where(self, keep: np.ndarray) -> Log:
        """Keep some rows, [N] bool, and only the users and items that these rows have.

        Raises:
            InputError: no row is kept.
        """
        if not keep.any():
            raise InputError(f"none of the {len(self)} interactions is left; ask for fewer interactions a user or item")
        kept_users, users = np.unique(self.users[keep], return_inverse=True)
        kept_items, items = np.unique(self.items[keep], return_inverse=True)
        stamps = None if self.stamps is None else self.stamps[keep]
        return Log(self.user_ids[kept_users], self.item_ids[kept_items], users, items, self.times[keep], stamps)

    def in_order(self, order: np.ndarray) -> Log:
        """Put the rows in another order, [N] int64."""
        stamps = None if self.stamps is None else self.stamps[order]
        return replace(self, users=self.users[order], items=self.items[order], times=self.times[order], stamps=stamps)

    def without_repeats(self, keep: Keep) -> Log:
        """Keep the first or the last row in time of each user and item."""
        order = np.lexsort((self.times, self.items, self.users))
        pairs = np.stack([self.users[order], self.items[order]])
        changes = (np.diff(pairs) != 0).any(axis=0)
        is_kept = np.append(changes, True) if keep == "last" else np.append(True, changes)
        kept = np.zeros(len(self), dtype=bool)
        kept[order[is_kept]] = True
        return self.where(kept)

    @property
    def _order(self) -> np.ndarray:
        """Rows by user, then time, [N] int64."""
        return np.lexsort((self.times, self.users))

    def histories(self) -> Histories:
        """Return each user's items in order of time, as item numbers: place in `item_ids` + 1."""
        order = self._order
        offsets = np.zeros(len(self.user_ids) + 1, dtype=np.int64)
        np.cumsum(self.user_counts, out=offsets[1:])
        return Histories((self.items[order] + 1).astype(np.int32), offsets)

    def interactions(self, items: Catalogue, name: str) -> Interactions:
        """Describe the log's items by a catalogue that has them all, and maybe more."""
        times = None if self.stamps is None else self.stamps[self._order]
        return Interactions(described(self.item_ids, items), self.user_ids, self.histories(), name, times)


def described(item_ids: np.ndarray, items: Catalogue) -> Catalogue:
    """Return the catalogue of these items, in this order, [I] str, out of a larger one; genres that none has go."""
    places = np.array([items.internal(item_id) - 1 for item_id in item_ids])
    genres = items.genres[places]
    occurs = genres.any(axis=0)
    return Catalogue(
        item_ids,
        items.titles[places],
        tuple(name for name, has_items in zip(items.genre_names, occurs, strict=True) if has_items),
        genres[:, occurs],
        {column: values[places] for column, values in items.columns.items()},
    )
