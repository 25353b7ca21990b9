"""The work has the shapes that the table's rows are named after."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import work
from benchmarks.curves import Size


@pytest.mark.parametrize("n", [16, 128])
def test_steam_like_histories_have_median_7_and_the_longest_200(n: int):
    lengths = work.steam_like_histories(n).lengths
    assert lengths.max() == 200
    assert 6 <= np.median(lengths) <= 8
    assert np.median(work.steam_like_lengths(100_000)) == 7
    assert lengths.min() >= 1


def test_histories_hold_no_item_twice():
    for history in [*work.full_histories(2), *work.steam_like_histories(4)]:
        assert len(set(history.tolist())) == len(history)


def test_lists_to_learn_from_avoid_the_history():
    histories = work.full_histories(2, length=6, n_items=12)
    rollout = work.rollout(histories, 3, n_items=12, k=4)
    for history, lists in zip(histories, rollout.slates, strict=True):
        assert all(len({*items, *history.tolist()}) == 10 for items in lists.tolist())


def test_operations_are_counted_by_hand_for_a_tiny_case():
    size = Size(history_length=1, k=2, n_lists=1, n_items=10, n_histories=1)
    # Logits: 2 places x 10 items x 256 x 2. Two tokens of history, of which the last of 3 layers makes keys and values.
    assert size.head_operations == 2 * 10 * 256 * 2
    history = 2 * 2 * (24 * 256**2 + 4 * 256 * 1) + 2 * 4 * 256**2
    assert size.body_operations == history + 3 * (24 * 256**2 + 4 * 256 * 3)
