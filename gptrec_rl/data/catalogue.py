"""The catalogue: which items there are, what they are called and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from gptrec_rl.data.histories import item_numbers, locked
from gptrec_rl.data.texts import as_texts, examples, is_text, packed
from gptrec_rl.errors import InputError


def content_hash(named_arrays: Mapping[str, np.ndarray]) -> str:
    """Return a SHA-256 (hex) over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(named_arrays):
        array = named_arrays[name]
        kind, parts = ("text", packed(array)) if is_text(array) else (array.dtype.str, (array,))
        digest.update(f"{name}|{kind}|{array.shape}|".encode())
        for part in parts:
            digest.update(part.tobytes())
    return digest.hexdigest()


MOST_GENRE_CELLS = 2**29
"""Items x genres, a byte each."""


@dataclass(frozen=True)
class Catalogue:
    """The I items, whose arrays can't be changed. Internal ids are 1..I; 0 is padding and I + 1 the separator.

    Attributes:
        item_ids: external ids, [I] text; the item with number i is at place i - 1.
        titles: [I] text, the external id where the source has no title.
        genre_names: names of the genres, one a column of `genres`.
        genres: [I, n_genres] bool.
        columns: the source's further item columns, each [I] numbers or text, for a user's own rewards.
        former_hash: what earlier releases called `hash`, where the data file is one of theirs: models that they
            trained on it go on working.
    """

    item_ids: np.ndarray
    titles: np.ndarray
    genre_names: tuple[str, ...] = ()
    genres: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    former_hash: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", as_texts(self.item_ids))
        object.__setattr__(self, "titles", as_texts(self.titles))
        object.__setattr__(self, "columns", {name: as_texts(array) for name, array in self.columns.items()})
        if self.genres.size == 0:
            object.__setattr__(self, "genres", np.zeros((self.n_items, len(self.genre_names)), dtype=bool))
        for name, array in {"titles": self.titles, "genres": self.genres, **self.columns}.items():
            if len(array) != self.n_items:
                raise InputError(f"catalogue: {name} has {len(array)} rows for {self.n_items} items; give one a row")
        for name in ("item_ids", "titles", "genres"):
            object.__setattr__(self, name, locked(getattr(self, name)))
        columns = {name: locked(array) for name, array in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(columns))
        if len(self._places) != self.n_items:
            ids, counts = np.unique(self.item_ids, return_counts=True)
            raise InputError(f"catalogue: item '{ids[counts > 1][0]}' is listed more than once; keep one row of it")

    @property
    def n_items(self) -> int:
        """I, how many items there are."""
        return len(self.item_ids)

    @property
    def separator(self) -> int:
        """The token that ends a history."""
        return self.n_items + 1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(item_id): place for place, item_id in enumerate(self.item_ids)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the ids in order: what numbers mean, to models and rollouts. What is known of items is no part."""
        return content_hash({"item_ids": self.item_ids})

    def internal(self, item_id: str) -> int:
        """Return the item number (1..I) of an external id.

        Raises:
            InputError: the catalogue has no such item.
        """
        try:
            return self._places[str(item_id)] + 1
        except KeyError:
            raise InputError(
                f"unknown item {item_id!r}: the catalogue has {self.n_items} items, such as "
                f"{examples(str(item_id), self.item_ids)}; give one of its ids"
            ) from None

    def title(self, item: int) -> str:
        """Return the title of an item by its number."""
        return str(self.titles[item_numbers(item, self.n_items) - 1])

    def genres_of(self, item: int) -> list[str]:
        """Return the genre names of an item by its number."""
        return [
            self.genre_names[column] for column in np.flatnonzero(self.genres[item_numbers(item, self.n_items) - 1])
        ]

    def require_genres(self) -> None:
        """Refuse a catalogue in which an item lacks genres, which diversity is computed from.

        Raises:
            InputError: names the first such item and how many there are.
        """
        without = np.flatnonzero(~self.genres.any(axis=1)) if self.genre_names else np.arange(self.n_items)
        if len(without):
            raise InputError(
                f"item '{self.item_ids[without[0]]}' has no genre ({len(without)} of {self.n_items} items have none), "
                "so ILD and calibration are not defined; add its genres, prepare the data with --drop-ungenred, "
                "or choose another goal"
            )


def genre_matrix(genres_of_items: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Turn the genre names of each item into sorted names and a matrix, [I, n_genres] bool."""
    names = tuple(sorted({name for genres in genres_of_items for name in genres}))
    if len(names) * len(genres_of_items) > MOST_GENRE_CELLS:
        raise InputError(
            f"{len(names):,} genres among {len(genres_of_items):,} items are more than can be held, and hardly genres "
            f"(such as {names[0]!r}); name a column of fewer ones, or leave it out"
        )
    column = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(genres_of_items), len(names)), dtype=bool)
    for row, genres in enumerate(genres_of_items):
        matrix[row, [column[name] for name in genres]] = True
    return names, matrix
