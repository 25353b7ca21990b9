"""Ragged batches of item sequences: the form in which histories travel through the whole library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gptrec_rl.errors import InputError

LARGEST = np.iinfo(np.int32).max


def item_numbers(items: object, n_items: int = LARGEST) -> np.ndarray:
    """Return item numbers as an array of integers, of any shape, once each is known to be one of 1..I.

    Raises:
        InputError: names the first that isn't.
    """
    array = np.asarray(items)
    if array.size == 0:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise InputError(f"{array.flat[0]!r} is no item number; give whole numbers, 1 to {n_items}")
    if array.min() < 1 or array.max() > n_items:
        wrong = array[(array < 1) | (array > n_items)].flat[0]
        raise InputError(f"{wrong} is no item number; give numbers of the catalogue's items, 1 to {n_items}")
    return array


def locked(array: np.ndarray) -> np.ndarray:
    """Return a view that can't be changed: what a user's own function is given is ours."""
    view = array.view()
    view.flags.writeable = False
    return view


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
    def of(cls, histories: Histories | Iterable[Sequence[int] | np.ndarray], n_items: int | None = None) -> Histories:
        """Make a batch from any iterable of item sequences; a `Histories` is returned as it is.

        Args:
            histories: the sequences.
            n_items: I, to check a batch that is asked about; None where the items are known to be of the catalogue.

        Raises:
            InputError: an item is no whole number of 1..I.
        """
        if not isinstance(histories, Histories):
            arrays = [_history(history) for history in histories]
            offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
            np.cumsum([len(array) for array in arrays], out=offsets[1:])
            values = item_numbers(np.concatenate(arrays) if arrays else [])
            histories = cls(values.astype(np.int32, copy=False), offsets)
        if n_items is not None:
            item_numbers(histories.values, n_items)
        return histories

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
        return self._parts(self.offsets[indices], self.lengths[indices])

    def without_last(self, n: int | np.ndarray) -> Histories:
        """Return the histories without their last n items, at most all of them; n is one number or one a history."""
        return self._parts(self.offsets[:-1], np.maximum(self.lengths - n, 0))

    def _parts(self, starts: np.ndarray, lengths: np.ndarray) -> Histories:
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Histories(self.values[places], offsets)

    def pairs(self, n_items: int) -> np.ndarray:
        """Return each history's items as sorted numbers `row * (I + 1) + item`, each once, [N] int64."""
        rows = np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)
        return np.unique(rows * (n_items + 1) + self.values)

    def contains(self, n_items: int) -> np.ndarray:
        """Return which items each history holds, [B, I] bool; column i - 1 is item i.

        Raises:
            InputError: an item is not one of 1..I.
        """
        seen = np.zeros((len(self), n_items), dtype=bool)
        seen[np.repeat(np.arange(len(self)), self.lengths), item_numbers(self.values, n_items) - 1] = True
        return seen


def _history(items: object) -> np.ndarray:
    """Return one sequence of whole numbers, [T]; its range is checked together with the others'."""
    array = np.asarray(items)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{str(items)[:80]} is no history; give a sequence of item numbers, oldest first")
    return array if array.size else array.astype(np.int32)
