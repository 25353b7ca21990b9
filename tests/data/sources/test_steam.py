from __future__ import annotations

import gzip
import hashlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.data import Interactions
from gptrec_rl.data.sources.log import Log
from gptrec_rl.data.sources.steam import read_raw, read_reviews, recipe
from gptrec_rl.errors import InputError

Review = tuple[str, str, str]  # user, game, date
GAMES = [
    {"app_name": "Alpha's", "id": "10", "tags": ["Indie", "Action"], "price": 4.99},
    {"app_name": "Beta", "id": "20", "tags": ["Indie"]},
    {"title": "no id"},
    {"app_name": "Untagged", "id": "30"},
]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def write_raw(folder: Path, reviews: list[Review]) -> tuple[Path, Path]:
    """Write UCSD's form: Python 2 literals with unicode prefixes, and more fields than are needed."""
    lines = [
        f"{{u'username': u'{user}', u'hours': 0.1, u'product_id': u'{game}', u'date': u'{day}', u'text': u'\\u2019'}}"
        for user, game, day in reviews
    ]
    reviews_path = write_lines(folder / "steam_reviews.json.gz", lines)
    return reviews_path, write_lines(folder / "steam_games.json.gz", [repr(game) for game in GAMES])


def as_log(reviews: list[Review]) -> Log:
    users, games, days = zip(*reviews, strict=True)
    user_ids, user_codes = np.unique(users, return_inverse=True)
    game_ids, game_codes = np.unique(games, return_inverse=True)
    return Log(
        user_ids, game_ids, user_codes, game_codes, np.array([date.fromisoformat(day).toordinal() for day in days])
    )


def histories_by_id(log: Log) -> dict[str, list[str]]:
    return {
        str(user): [str(log.item_ids[item - 1]) for item in history]
        for user, history in zip(log.user_ids, log.histories(), strict=True)
    }


def five(user: str, games: str = "abcde") -> list[Review]:
    return [(user, game, f"2015-01-0{day}") for day, game in enumerate(games, start=1)]


def test_users_with_fewer_than_five_are_dropped_after_repeats_and_unpopular_games() -> None:
    reviews = [
        *five("u1"),
        *five("u2"),
        *five("u3", "abcd"),  # four games
        *five("u4", "abcda"),  # five reviews of four games
        *five("u5", "abcdz"),  # five games, one of them not among the five most popular
    ]
    assert histories_by_id(recipe(as_log(reviews), n_items=5)) == {"u1": list("abcde"), "u2": list("abcde")}


def test_of_repeats_the_last_counts() -> None:
    reviews = [*five("u1"), ("u1", "a", "2016-01-01")]
    assert histories_by_id(recipe(as_log(reviews))) == {"u1": list("bcdea")}


def test_of_equally_popular_games_the_smaller_id_stays() -> None:
    assert recipe(as_log([*five("u1", "vwxyz"), *five("u1", "abcde")]), n_items=6).item_ids.tolist() == list("abcdev")


def test_games_of_one_day_are_ordered_by_the_documented_hash() -> None:
    reviews = [("u1", game, "2015-02-24") for game in "abcdef"]
    expected = sorted("abcdef", key=lambda g: hashlib.blake2b(f"u1_{g}_2015-02-24".encode(), digest_size=8).digest())
    assert expected != list("abcdef")
    assert histories_by_id(recipe(as_log(reviews))) == {"u1": expected}
    assert histories_by_id(recipe(as_log(reviews[::-1]))) == {"u1": expected}


def test_raw_files_become_interactions(tmp_path: Path) -> None:
    games = ["10", "20", "30", "40", "50"]
    reviews = [(user, game, f"2015-01-0{day}") for user in ("u1", "Zoë") for day, game in enumerate(games, start=1)]
    interactions = read_raw(*write_raw(tmp_path, reviews))
    catalogue = interactions.catalogue
    assert interactions.user_ids.tolist() == ["u1", "Zoë"]
    assert catalogue.item_ids.tolist() == games
    assert catalogue.titles.tolist() == ["Alpha's", "Beta", "Untagged", "40", "50"]
    assert [catalogue.genres_of(item) for item in range(1, 6)] == [["Action", "Indie"], ["Indie"], [], [], []]
    assert [history.tolist() for history in interactions.histories] == [[1, 2, 3, 4, 5]] * 2


def test_games_without_tags_can_be_dropped(tmp_path: Path) -> None:
    reviews = [("u1", game, "2015-01-01") for game in ("10", "20", "30", "40", "50")]
    with pytest.raises(InputError, match="none of the 2 interactions is left"):  # two games have tags, five are needed
        read_raw(*write_raw(tmp_path, reviews), drop_ungenred=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'username': 'u', 'product_id': '1'}", "line 2: .* is not a review with username, product_id and date"),
        ("{'username': 'u', 'product_id': '1', 'date': '24.2.2015'}", "line 2: .* is not a review with"),
        ("{'username': None, 'product_id': '1', 'date': '2015-02-24'}", "line 2: .* is not a review with"),
        ("{'username': 'u', 'product_id': ", "line 2: .* is not a Python literal of a dictionary"),
        ("['a', 'list']", "line 2: .* is not a Python literal of a dictionary"),
        ("__import__('os').getcwd()", "line 2: .* is not a Python literal of a dictionary"),
    ],
)
def test_a_malformed_review_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    good = "{'username': 'u', 'product_id': '1', 'date': '2015-02-24'}"
    with pytest.raises(InputError, match=message):
        read_reviews(write_lines(tmp_path / "reviews.json.gz", [good, line]))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    reviews, _ = write_raw(tmp_path, five("u1"))
    reviews.write_bytes(reviews.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"steam_reviews\.json\.gz can't be read"):
        read_reviews(reviews)


def test_real_products_and_tags_go_through_the_recipe(real_steam: Interactions) -> None:
    catalogue, histories = real_steam.catalogue, real_steam.histories
    assert catalogue.n_items <= 1000
    assert histories.lengths.min() >= 5
    assert all(len(set(history.tolist())) == len(history) for history in histories)
    assert catalogue.title(catalogue.internal("440")) == "Team Fortress 2"
    assert "Free to Play" in catalogue.genres_of(catalogue.internal("440"))
