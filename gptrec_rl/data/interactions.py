"""Interactions: who had what, in order; with the catalogue, one hashed file on disk."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, content_hash
from gptrec_rl.data.format_1 import from_format_1
from gptrec_rl.data.histories import Histories, item_numbers
from gptrec_rl.data.texts import as_texts, examples, is_text, packed, text_array, unpacked
from gptrec_rl.errors import InputError, StorageError, may_pass
from gptrec_rl.files import replacing

FORMAT_VERSION = 3
WITHOUT_TIMES = 2
"""The version before, which has none."""
COLUMN, UTF8, ENDS = "column:", "utf8:", "offsets:"
"""What stands before the name of a further column, and before the two arrays that a column of text is kept as."""


def is_data_file(path: Path) -> bool:
    """Tell whether a file is one that `Interactions.save` wrote, of whatever format."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "format_version.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@dataclass(frozen=True)
class Interactions:
    """The chronological history of each of U users, with the catalogue that its items are from.

    Attributes:
        catalogue: the I items.
        user_ids: external user ids, [U] text.
        histories: one a user, oldest item first, as item numbers.
        name: what the data is called in tables and logs.
        times: when each interaction was, in the order of `histories.values`, [N] int64 or float64, rising within a
            history: dates in microseconds since 1970 (UTC), numbers as the source has them. None: nobody knows.
    """

    catalogue: Catalogue
    user_ids: np.ndarray
    histories: Histories
    name: str
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.times is not None and (
            self.times.dtype not in (np.int64, np.float64) or self.times.shape != self.histories.values.shape
        ):
            raise InputError(
                f"{self.name}: times of type {self.times.dtype} and shape {self.times.shape} for "
                f"{len(self.histories.values)} interactions; give an int64 or float64 each"
            )
        if len(self.user_ids) != len(self.histories):
            raise InputError(f"{self.name}: {len(self.user_ids)} user ids for {len(self.histories)} histories")
        object.__setattr__(self, "user_ids", as_texts(self.user_ids))
        item_numbers(self.histories.values, self.catalogue.n_items)

    @property
    def n_users(self) -> int:
        """U, how many users there are."""
        return len(self.user_ids)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(user_id): row for row, user_id in enumerate(self.user_ids)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything but name and times: values that were measured on other data don't compare."""
        return content_hash(self._arrays())

    def _arrays(self) -> dict[str, np.ndarray]:
        catalogue = self.catalogue
        return {
            "item_ids": catalogue.item_ids,
            "titles": catalogue.titles,
            "genre_names": text_array(catalogue.genre_names),
            "genres": np.packbits(catalogue.genres, axis=1),
            "user_ids": self.user_ids,
            "values": self.histories.values,
            "offsets": self.histories.offsets,
            **{f"{COLUMN}{name}": array for name, array in catalogue.columns.items()},
        }

    def row(self, user_id: str) -> int:
        """Return the row of a user by external id.

        Raises:
            InputError: there is no such user.
        """
        try:
            return self._rows[str(user_id)]
        except KeyError:
            raise InputError(
                f"unknown user {user_id!r}: {self.name} has {self.n_users} users, such as "
                f"{examples(str(user_id), self.user_ids)}; give one of its ids, or a history with --history"
            ) from None

    def save(self, path: Path) -> None:
        """Write one file; an existing one is replaced only when the new one is complete."""
        arrays = {"format_version": np.array(FORMAT_VERSION), "hash": np.array(self.hash), "name": np.array(self.name)}
        for name, array in self._arrays().items():
            if is_text(array):
                arrays[f"{UTF8}{name}"], arrays[f"{ENDS}{name}"] = packed(array)
            else:
                arrays[name] = array
        if self.times is not None:
            arrays |= {"times": self.times, "times_hash": np.array(content_hash({"times": self.times}))}
        with replacing(path) as place, place.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Interactions:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is missing, not ours, lacks an array, or its content is not what its hash says.
        """
        try:
            with path.open("rb") as stream:
                if stream.read(2) != b"PK":
                    raise InputError(
                        f"{path} is no prepared data file; make one of a log, CSV or Parquet, with "
                        f"`gptrec-rl data prepare table {path} --out {path.stem}.npz`"
                    )
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"data file {path} is not there; make it with `gptrec-rl data prepare`") from None
        except OSError as error:
            if may_pass(error):
                raise StorageError(f"data file {path} can't be read now: {error}; see that its storage works") from None
            raise InputError(f"data file {path} can't be read ({error}); give another, or prepare it again") from None
        except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
            raise InputError(f"data file {path} can't be read ({error}); prepare it again") from None
        try:
            return cls._from_arrays(arrays, path)
        except KeyError as error:
            raise InputError(f"data file {path} is damaged: it has no array {error}; prepare it again") from None

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray], path: Path) -> Interactions:
        version = arrays.get("format_version")
        former_hash = None
        if version is not None and version == 1:
            arrays, former_hash = from_format_1(arrays, path)
        elif version is None or version not in (FORMAT_VERSION, WITHOUT_TIMES):
            raise InputError(f"data file {path} has format {version}, not {FORMAT_VERSION}; prepare it again")
        else:
            try:
                texts = {name.removeprefix(UTF8): array for name, array in arrays.items() if name.startswith(UTF8)}
                arrays |= {name: unpacked(array, arrays[f"{ENDS}{name}"]) for name, array in texts.items()}
            except ValueError as error:
                raise InputError(f"data file {path} is damaged ({error}); prepare it again") from None
        genre_names = tuple(arrays["genre_names"].tolist())
        genres = np.unpackbits(arrays["genres"], axis=1, count=len(genre_names)).astype(bool)
        columns = {name.removeprefix(COLUMN): array for name, array in arrays.items() if name.startswith(COLUMN)}
        catalogue = Catalogue(arrays["item_ids"], arrays["titles"], genre_names, genres, columns, former_hash)
        histories = Histories(arrays["values"], arrays["offsets"])
        times = arrays.get("times")
        interactions = cls(catalogue, arrays["user_ids"], histories, str(arrays["name"]), times)
        is_other = former_hash is None and interactions.hash != str(arrays["hash"])
        if is_other or (times is not None and content_hash({"times": times}) != str(arrays["times_hash"])):
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
