"""The layout of Appendix B."""

from __future__ import annotations

import torch

from gptrec_rl.data import Histories
from gptrec_rl.models.sequence import history_tokens, slate_positions

CPU = torch.device("cpu")


def test_histories_are_cut_to_their_last_n_and_padded_on_the_left() -> None:
    laid_out = history_tokens(Histories.of([[], [4], [1, 2, 3, 4, 5]]), 3, 13, CPU)
    assert laid_out.tokens.tolist() == [[0, 0, 0, 13], [0, 0, 4, 13], [3, 4, 5, 13]]
    assert laid_out.is_real.tolist() == [
        [False, False, False, True],
        [False, False, True, True],
        [True, True, True, True],
    ]


def test_positions_count_back_from_the_separator_and_on_from_n() -> None:
    laid_out = history_tokens(Histories.of([[1, 2], [5]]), 200, 13, CPU)
    assert laid_out.positions.tolist() == [2, 1, 0]
    # The i-th item of the list, i = 1.., has n + i.
    assert slate_positions(0, 3, 200, CPU).tolist() == [201, 202, 203]
    assert slate_positions(1, 2, 200, CPU).tolist() == [202]


def test_empty_histories_alone_are_the_separator_alone() -> None:
    laid_out = history_tokens(Histories.of([[], []]), 5, 13, CPU)
    assert laid_out.tokens.tolist() == [[13], [13]]
    assert laid_out.is_real.all()
