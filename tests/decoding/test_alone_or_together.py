"""A user's list doesn't depend on who else is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gptrec_rl.decoding import NextK, TopK
from gptrec_rl.models.gptrec import GPTRec

HISTORIES = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [], [3], [9, 8], [2, 4, 6, 8, 10, 12, 14], [5, 5, 1]]


@pytest.mark.parametrize("kind", [NextK, TopK])
def test_a_list_is_the_same_alone_in_a_batch_and_in_another_order(
    kind: type[NextK | TopK], make_policy: Callable[..., GPTRec]
) -> None:
    model = kind(make_policy(n_items=40, history_length=6, slate_length=5), "fp32")
    together = model.recommend(HISTORIES, 5).items
    np.testing.assert_array_equal(model.recommend(HISTORIES[::-1], 5).items[::-1], together)
    for history, items in zip(HISTORIES, together, strict=True):
        np.testing.assert_array_equal(model.recommend([history], 5).items[0], items)
