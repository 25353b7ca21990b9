from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.data import Histories

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
