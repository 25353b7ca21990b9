from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.data import Catalogue
from gptrec_rl.data.sources.log import Keep, Log
from gptrec_rl.errors import InputError

Row = tuple[int, int, int]  # user, item, time
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=30)


def make_log(rows: list[Row]) -> Log:
    users, items, times = np.array(rows).T
    user_ids, user_codes = np.unique(users, return_inverse=True)
    item_ids, item_codes = np.unique(items, return_inverse=True)
    return Log(user_ids.astype(np.str_), item_ids.astype(np.str_), user_codes, item_codes, times)


def histories_by_id(log: Log) -> dict[str, list[str]]:
    histories = log.histories()
    return {
        str(user): [str(log.item_ids[item - 1]) for item in history]
        for user, history in zip(log.user_ids, histories, strict=True)
    }


@given(ROWS)
def test_histories_are_in_order_of_time_and_ties_in_order_of_the_log(rows: list[Row]) -> None:
    expected = {
        str(user): [str(item) for u, item, _ in sorted(rows, key=lambda row: row[2]) if u == user]
        for user, _, _ in rows
    }
    assert histories_by_id(make_log(rows)) == expected


@given(ROWS, st.sampled_from(["first", "last"]))
def test_one_row_of_each_user_and_item_is_left(rows: list[Row], keep: Keep) -> None:
    expected: dict[tuple[int, int], int] = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        if keep == "last" or (user, item) not in expected:
            expected[user, item] = time
    log = make_log(rows).without_repeats(keep)
    left = {
        (int(log.user_ids[user]), int(log.item_ids[item])): int(time)
        for user, item, time in zip(log.users, log.items, log.times, strict=True)
    }
    assert left == expected
    assert len(log) == len(expected)


def test_of_repeats_at_one_time_the_later_row_is_the_last() -> None:
    log = make_log([(0, 1, 5), (0, 2, 5), (0, 1, 5)])
    assert histories_by_id(log.without_repeats("last")) == {"0": ["2", "1"]}
    assert histories_by_id(log.without_repeats("first")) == {"0": ["1", "2"]}


def test_users_and_items_without_rows_are_forgotten() -> None:
    log = make_log([(0, 1, 1), (1, 2, 2), (1, 3, 3)]).where(np.array([False, True, True]))
    assert log.user_ids.tolist() == ["1"]
    assert log.item_ids.tolist() == ["2", "3"]
    assert (log.user_counts.tolist(), log.item_counts.tolist()) == ([2], [1, 1])


def test_a_log_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(InputError, match="none of the 1 interactions is left"):
        make_log([(0, 1, 1)]).where(np.array([False]))


def test_items_are_described_and_genres_that_none_has_go() -> None:
    items = Catalogue(
        np.array(["1", "2", "3"]),
        np.array(["One", "Two", "Three"]),
        ("Comedy", "War"),
        np.array([[True, False], [False, True], [False, True]]),
        {"price": np.array([10, 20, 30])},
    )
    interactions = make_log([(0, 3, 1), (0, 2, 2)]).interactions(items, "tiny")
    assert interactions.catalogue.titles.tolist() == ["Two", "Three"]
    assert interactions.catalogue.genre_names == ("War",)
    assert interactions.catalogue.columns["price"].tolist() == [20, 30]
    assert interactions.histories[0].tolist() == [2, 1]
