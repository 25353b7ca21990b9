from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError

BATCHES = st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=6)


@given(BATCHES)
def test_what_goes_in_comes_out(batch: list[list[int]]) -> None:
    histories = Histories.of(batch)
    assert [history.tolist() for history in histories] == batch
    assert histories.lengths.tolist() == [len(history) for history in batch]
    assert len(histories) == len(batch)
    assert (histories.values.dtype, histories.offsets.dtype) == (np.int32, np.int64)


def test_a_batch_is_returned_as_it_is() -> None:
    histories = Histories.of([[1, 2], []])
    assert Histories.of(histories) is histories


def test_take_selects_in_the_given_order() -> None:
    histories = Histories.of([[1], [], [2, 3]])
    assert [history.tolist() for history in histories.take(np.array([2, 0, 2]))] == [[2, 3], [1], [2, 3]]


@given(BATCHES)
def test_contains_agrees_with_python_sets(batch: list[list[int]]) -> None:
    expected = [[item in history for item in range(1, 10)] for history in batch]
    assert Histories.of(batch).contains(9).tolist() == expected


@pytest.mark.parametrize(
    "history", [[0, 5], [-1, 5], [1.9, 5.2], ["3", "5"], [True], [2**31 + 5], [float("nan")], 7, [[1]]]
)
def test_what_is_no_item_number_is_refused(history: object) -> None:
    with pytest.raises(InputError):
        Histories.of([[1], history])  # type: ignore[list-item]


def test_an_item_beyond_the_catalogue_is_named() -> None:
    assert Histories.of([[40], []], 40).lengths.tolist() == [1, 0]
    for asked in ([[1, 41]], Histories.of([[1, 41]])):
        with pytest.raises(InputError, match="41 is no item number; give numbers of the catalogue's items, 1 to 40"):
            Histories.of(asked, 40)
    with pytest.raises(InputError, match="41 is no item number"):
        Histories.of([[1, 41]]).contains(40)


def test_histories_without_their_last_items() -> None:
    histories = Histories.of([[1, 2, 3], [], [4], [5, 6]])
    assert [h.tolist() for h in histories.without_last(1)] == [[1, 2], [], [], [5]]
    assert [h.tolist() for h in histories.without_last(np.array([2, 1, 0, 5]))] == [[1], [], [4], []]


def test_pairs_are_each_users_items_once() -> None:
    histories = Histories.of([[2, 1, 2], [], [3]])  # of 3 items: row x 4 + item
    assert histories.pairs(3).tolist() == [1, 2, 11]
