"""Interactions: who had what, in order; with the catalogue, one hashed file on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, content_hash
from gptrec_rl.data.histories import Histories
from gptrec_rl.errors import InputError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Interactions:
    """The chronological history of each of U users, with the catalogue that its items are from.

    Attributes:
        catalogue: the I items.
        user_ids: external user ids, [U] str.
        histories: one a user, oldest item first, internal item ids.
        name: what the data is called in tables and logs.
    """

    catalogue: Catalogue
    user_ids: np.ndarray
    histories: Histories
    name: str

    def __post_init__(self) -> None:
        if len(self.user_ids) != len(self.histories):
            raise InputError(f"{self.name}: {len(self.user_ids)} user ids for {len(self.histories)} histories")

    @property
    def n_users(self) -> int:
        """U, how many users there are."""
        return len(self.user_ids)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(user_id): row for row, user_id in enumerate(self.user_ids)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the catalogue and every history in order."""
        return content_hash(
            {
                "catalogue": np.array(self.catalogue.hash),
                "user_ids": self.user_ids,
                "values": self.histories.values,
                "offsets": self.histories.offsets,
            }
        )

    def row(self, user_id: str) -> int:
        """Return the row of a user by external id.

        Raises:
            InputError: there is no such user.
        """
        try:
            return self._rows[str(user_id)]
        except KeyError:
            raise InputError(
                f"unknown user {user_id!r}: {self.name} has {self.n_users} users, '{self.user_ids[0]}' to "
                f"'{self.user_ids[-1]}'; give one of its ids, or a history with --history"
            ) from None

    def save(self, path: Path) -> None:
        """Write one file; an existing one is replaced only when the new one is complete."""
        catalogue = self.catalogue
        arrays: dict[str, np.ndarray] = {
            "format_version": np.array(FORMAT_VERSION),
            "hash": np.array(self.hash),
            "name": np.array(self.name),
            "item_ids": catalogue.item_ids,
            "titles": catalogue.titles,
            "genre_names": np.array(catalogue.genre_names, dtype=np.str_),
            "genres": np.packbits(catalogue.genres, axis=1),
            "user_ids": self.user_ids,
            "values": self.histories.values,
            "offsets": self.histories.offsets,
            **{f"column:{name}": array for name, array in catalogue.columns.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Interactions:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing, not ours, lacks an array, or its content is not what its hash says.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            raise InputError(f"data file {path} is not there; make it with `gptrec-rl data prepare`") from None
        except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
            raise InputError(f"data file {path} can't be read ({error}); prepare it again") from None
        try:
            return cls._from_arrays(arrays, path)
        except KeyError as error:
            raise InputError(f"data file {path} is damaged: it has no array {error}; prepare it again") from None

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray], path: Path) -> Interactions:
        version = arrays.get("format_version")
        if version is None or int(version) != FORMAT_VERSION:
            raise InputError(f"data file {path} has format {version}, not {FORMAT_VERSION}; prepare it again")
        genre_names = tuple(str(name) for name in arrays["genre_names"])
        genres = np.unpackbits(arrays["genres"], axis=1, count=len(genre_names)).astype(bool)
        columns = {name.removeprefix("column:"): array for name, array in arrays.items() if name.startswith("column:")}
        catalogue = Catalogue(arrays["item_ids"], arrays["titles"], genre_names, genres, columns)
        histories = Histories(arrays["values"], arrays["offsets"])
        interactions = cls(catalogue, arrays["user_ids"], histories, str(arrays["name"]))
        if interactions.hash != str(arrays["hash"]):
            raise InputError(f"data file {path} was altered: its content is not what its hash says; prepare it again")
        return interactions


@dataclass(frozen=True)
class Statistics:
    """The columns of the paper's Table 2 (mean and median of the users' history lengths)."""

    users: int
    items: int
    interactions: int
    mean_length: float
    median_length: float
    sparsity: float
    genres: int


def statistics(interactions: Interactions) -> Statistics:
    """Compute Table 2's row; sparsity is the share of user-item pairs without an interaction, 0..1."""
    lengths = interactions.histories.lengths
    n_interactions = int(lengths.sum())
    n_items = interactions.catalogue.n_items
    return Statistics(
        users=interactions.n_users,
        items=n_items,
        interactions=n_interactions,
        mean_length=float(lengths.mean()),
        median_length=float(np.median(lengths)),
        sparsity=1.0 - n_interactions / (interactions.n_users * n_items),
        genres=len(interactions.catalogue.genre_names),
    )
