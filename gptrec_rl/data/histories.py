"""Ragged batches of item sequences: the form in which histories travel through the whole library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Histories:
    """B histories of unequal length (0 included), oldest item first.

    Attributes:
        values: all items one after the other, [sum of lengths] int32, items in 1..I.
        offsets: history b is ``values[offsets[b]:offsets[b + 1]]``, [B + 1] int64, starting at 0.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, histories: Histories | Iterable[Sequence[int] | np.ndarray]) -> Histories:
        """Make a batch from any iterable of item sequences; a `Histories` is returned as it is."""
        if isinstance(histories, Histories):
            return histories
        arrays = [np.asarray(history, dtype=np.int32) for history in histories]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the histories, [B] int64."""
        return np.diff(self.offsets)

    def take(self, indices: np.ndarray) -> Histories:
        """Return the histories at these places, in this order."""
        return Histories.of([self[int(index)] for index in indices])

    def contains(self, n_items: int) -> np.ndarray:
        """Return which items each history holds, [B, I] bool; column i - 1 is item i."""
        seen = np.zeros((len(self), n_items), dtype=bool)
        seen[np.repeat(np.arange(len(self)), self.lengths), self.values - 1] = True
        return seen
