"""Steam-2M (the paper's second data set), from UCSD's raw `steam_reviews.json.gz` and `steam_games.json.gz`."""

from __future__ import annotations

import ast
import hashlib
from array import array
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, genre_matrix
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.data.sources.files import DAMAGED, bad_line, open_packed
from gptrec_rl.data.sources.log import Log
from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError

N_ITEMS = 1000
MICROSECONDS_A_DAY = 86_400_000_000
MIN_USER_INTERACTIONS = 5


def read_raw(reviews: Path, games: Path, drop_ungenred: bool = False) -> Interactions:
    """Read the two raw files, one Python literal a line, one line at a time; a game's genres are its tags.

    Args:
        reviews: UCSD's `steam_reviews.json.gz`.
        games: UCSD's `steam_games.json.gz`.
        drop_ungenred: leave games without tags out before anything else.

    Raises:
        InputError: a file is missing or damaged, or a line is malformed (names file and line).
    """
    log = read_reviews(reviews)
    catalogue = read_games(games, log.item_ids)
    if drop_ungenred:
        log = log.where(np.any(catalogue.genres, axis=1)[log.items])
    return recipe(log).interactions(catalogue, "steam-2m")


def recipe(log: Log, n_items: int = N_ITEMS) -> Log:
    """Prepare a log of (user, game, day) as the paper does.

    Repeats of a user and game keep the last; then the most popular games (equal ones: the smaller id); then the users
    with 5 or more. The day is the timestamp, so many rows tie: they are ordered by BLAKE2b of `user_game_day` (day in
    ISO 8601), which does not depend on the order of the file. The authors' hash is murmur3, so the order of ties, and
    with it some last items, differ from theirs.

    Args:
        log: times are days, as ordinals of the proleptic Gregorian calendar.
        n_items: how many games to keep.
    """
    log = log.without_repeats("last")
    popularity_rank = np.empty(len(log.item_ids), dtype=np.int64)
    popularity_rank[np.lexsort((log.item_ids, -log.item_counts))] = np.arange(len(log.item_ids))
    log = log.where((popularity_rank < n_items)[log.items])
    log = log.where((log.user_counts >= MIN_USER_INTERACTIONS)[log.users])
    return log.in_order(np.argsort(_tie_breakers(log), kind="stable"))


def read_reviews(path: Path) -> Log:
    """Read `username`, `product_id` and `date` of every review.

    Raises:
        InputError: the file is missing or damaged, or a line is malformed (names file and line).
    """
    user_codes: dict[str, int] = {}
    item_codes: dict[str, int] = {}
    users, items, days = array("q"), array("q"), array("q")
    for number, line, record in _records(path, "reviews"):
        try:
            days.append(date.fromisoformat(record["date"]).toordinal())
            user, item = _id(record["username"]), _id(record["product_id"])
        except (KeyError, TypeError, ValueError):
            raise bad_line(path, number, line, "a review with username, product_id and date (YYYY-MM-DD)") from None
        users.append(user_codes.setdefault(user, len(user_codes)))
        items.append(item_codes.setdefault(item, len(item_codes)))
    if not days:
        raise InputError(f"{path} has no reviews; give the complete file")
    dates = np.frombuffer(days, dtype=np.int64)
    return Log(
        text_array(user_codes),
        text_array(item_codes),
        np.frombuffer(users, dtype=np.int64),
        np.frombuffer(items, dtype=np.int64),
        dates,
        stamps=(dates - date(1970, 1, 1).toordinal()) * MICROSECONDS_A_DAY,
    )


def read_games(path: Path, item_ids: np.ndarray) -> Catalogue:
    """Read title and tags of these games; one that the file lacks is called by its id and has no tags.

    Raises:
        InputError: the file is missing or damaged, or a line is malformed (names file and line).
    """
    games = {str(record["id"]): record for _, _, record in _records(path, "games") if "id" in record}
    described = [games.get(item_id, {}) for item_id in item_ids.tolist()]
    titles = [game.get("app_name") or item_id for game, item_id in zip(described, item_ids, strict=True)]
    return Catalogue(item_ids, text_array(titles), *genre_matrix([game.get("tags", []) for game in described]))


def _id(value: object) -> str:
    if not isinstance(value, str | int) or value == "":
        raise ValueError(value)  # None is not a user of that name
    return str(value)


def _records(path: Path, unit: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    from tqdm import tqdm

    try:
        with open_packed(path) as stream:
            for number, raw in enumerate(tqdm(stream, unit=f" {unit}", desc=path.name), start=1):
                yield number, *_record(raw, path, number)
    except DAMAGED as error:
        raise InputError(f"{path} can't be read ({error}); give UCSD's complete file") from None


def _record(raw: bytes, path: Path, number: int) -> tuple[str, dict[str, Any]]:
    line = raw.decode(errors="replace").strip()
    try:
        record = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise bad_line(path, number, line, "a Python literal of a dictionary")
    return line, record


def _tie_breakers(log: Log) -> np.ndarray:
    users, items = log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist()
    keys = (f"{u}_{i}_{date.fromordinal(int(day))}" for u, i, day in zip(users, items, log.times, strict=True))
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=">u8")
