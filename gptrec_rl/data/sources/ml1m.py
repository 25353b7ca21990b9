"""MovieLens-1M, from the sequence file that sequential-recommendation papers share, or from GroupLens' own zip.

The two hold the same 999,611 interactions, but order equal timestamps differently: they have different hashes, and
their figures never stand in one table.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.data.sources.files import (
    bad_line,
    decode,
    integer_rows,
    read_text,
    split_genres,
    split_lines,
)
from gptrec_rl.data.sources.items import read_catalogue
from gptrec_rl.data.sources.log import Log
from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError
from gptrec_rl.files import replacing

ZIP_URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
ZIP_MD5 = "c4d9eecfca2ab87c1945afe126590906"
MIN_ITEM_INTERACTIONS = 5
CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30


def read_sequences(folder: Path) -> Interactions:
    """Read `interactions.txt` (`user item` a line, oldest first) and `items.csv`, plain or packed (.xz, .gz).

    Raises:
        InputError: a file is missing, a line is malformed, or an item is not in `items.csv`.
    """
    catalogue = read_catalogue(_find(folder, "items.csv"), "item_id")
    path = _find(folder, "interactions.txt")
    text = read_text(path)
    user_numbers, item_numbers = integer_rows(text, path, None, ("user", "item")).T
    place = {item_id: place for place, item_id in enumerate(catalogue.item_ids.tolist())}
    external, codes = np.unique(item_numbers, return_inverse=True)
    items = np.array([place.get(str(item_id), -1) for item_id in external])[codes]
    if items.min() < 0:
        line = int(items.argmin())
        raise bad_line(path, line + 1, split_lines(text)[line], "about an item of items.csv")
    users, user_codes = np.unique(user_numbers, return_inverse=True)
    log = Log(_as_ids(users), catalogue.item_ids, user_codes, items, times=np.arange(len(items)))
    return Interactions(catalogue, log.user_ids, log.histories(), "ml-1m")


def read_zip(path: Path) -> Interactions:
    """Read GroupLens' `ml-1m.zip`: by user and timestamp, ties in the order of the file, items with 5 or more only.

    Raises:
        InputError: the file is no such zip, or a line is malformed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            ratings, movies = (archive.read(f"ml-1m/{name}") for name in ("ratings.dat", "movies.dat"))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not GroupLens' ml-1m.zip ({error}); fetch it with --fetch FOLDER") from None
    catalogue = _movies(movies, path / "ml-1m/movies.dat")
    inside = path / "ml-1m/ratings.dat"
    rows = integer_rows(decode(ratings, inside, "latin-1"), inside, "::", ("user", "movie", "rating", "timestamp"))
    user_ids, users = np.unique(rows[:, 0], return_inverse=True)
    item_ids, items = np.unique(rows[:, 1], return_inverse=True)
    log = Log(_as_ids(user_ids), _as_ids(item_ids), users, items, rows[:, 3], stamps=rows[:, 3])
    log = log.where((log.item_counts >= MIN_ITEM_INTERACTIONS)[log.items])
    return log.interactions(catalogue, "ml-1m-grouplens")


def fetch_zip(folder: Path, url: str = ZIP_URL, md5: str = ZIP_MD5) -> Path:
    """Download `ml-1m.zip` into a folder, with a progress bar, and return its path; a right one is not fetched again.

    Raises:
        InputError: the address can't be reached, or the checksum differs; nothing is left behind.
    """
    from tqdm import tqdm

    target = folder / "ml-1m.zip"
    if target.exists() and hashlib.md5(target.read_bytes()).hexdigest() == md5:
        return target
    digest = hashlib.md5()
    with replacing(target) as place:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, place.open("wb") as stream:
                size = int(response.headers.get("Content-Length", 0)) or None
                with tqdm(total=size, unit="B", unit_scale=True, desc=target.name) as bar:
                    while chunk := response.read(CHUNK_BYTES):
                        digest.update(chunk)
                        stream.write(chunk)
                        bar.update(len(chunk))
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{url} can't be fetched ({error}); get it by other means and give it by --path") from None
        if digest.hexdigest() != md5:
            raise InputError(
                f"{url} has MD5 {digest.hexdigest()}, not {md5}: a broken download, or other data; try again"
            )
    return target


def _movies(content: bytes, path: Path) -> Catalogue:
    rows = []
    for number, line in enumerate(split_lines(decode(content, path, "latin-1")), start=1):
        fields = line.split("::")
        if len(fields) != 3:
            raise bad_line(path, number, line, "`movie::title::genres`")
        rows.append(fields)
    item_ids, titles, genres = zip(*rows, strict=True)
    return Catalogue(text_array(item_ids), text_array(titles), *genre_matrix(split_genres(genres)))


def _as_ids(numbers: np.ndarray) -> np.ndarray:
    return text_array([str(number) for number in numbers])


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.xz", folder / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder} holds no {name} (plain, .xz or .gz); give the folder of the sequence files")
