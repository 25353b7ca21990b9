"""How a batch of histories is cut into parts and put together again before lists are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gptrec_rl.data import Histories
from gptrec_rl.decoding.next_k import Generation, Writer, _together, generate
from gptrec_rl.models.backbone import Encoded
from gptrec_rl.models.gptrec import GPTRec

MakePolicy = Callable[..., GPTRec]
HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long


@pytest.mark.parametrize(
    ("lists_together", "scores", "n_rows"),
    [(1024, 10**6, [10]), (16, 10**6, [8, 2]), (1024, 8 * 2 * 12, [8, 2]), (1024, 4 * 2 * 12, [4, 4, 2])],
)
def test_parts_are_written_together_up_to_so_many_lists_and_scores(
    lists_together: int,
    scores: int,
    n_rows: list[int],
    make_policy: MakePolicy,
    monkeypatch: pytest.MonkeyPatch,
    cut_into: Callable[..., None],
) -> None:
    cut_into(tokens_per_part=1, lists_together=lists_together, scores_per_part=scores)  # parts of four histories
    seen, in_turn = [], Writer._in_turn

    def noted(self: Writer, encoded: Encoded, *others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(encoded.states))
        return in_turn(self, encoded, *others)

    monkeypatch.setattr(Writer, "_in_turn", noted)
    generate(make_policy(), Histories.of(HISTORIES * 2), 3, 2)  # 10 histories with 2 lists and 12 items
    assert seen == n_rows


@pytest.mark.parametrize(
    ("sampled", "scores", "sizes"), [(False, 100, [4, 4, 2]), (True, 1, [1] * 10)], ids=["greedy", "sampled"]
)
def test_lists_are_written_a_bounded_number_of_scores_at_a_time(
    sampled: bool,
    scores: int,
    sizes: list[int],
    make_policy: MakePolicy,
    monkeypatch: pytest.MonkeyPatch,
    cut_into: Callable[..., None],
) -> None:
    policy, histories, n_rows, lay_out = make_policy(), Histories.of(HISTORIES * 2), [], GPTRec.lay_out

    def written() -> Generation:
        # Nearly no temperature: samples are the most probable items, whatever the random numbers.
        return generate(policy, histories, 3, 2, 1e-3, torch.Generator().manual_seed(0) if sampled else None)

    expected = written()
    cut_into(scores_per_part=scores)  # of 2 lists and 12 items
    monkeypatch.setattr(GPTRec, "lay_out", lambda self, rows: n_rows.append(len(rows)) or lay_out(self, rows))
    in_parts = written()
    assert n_rows == sizes
    assert torch.equal(in_parts.items, expected.items)
    torch.testing.assert_close(in_parts.log_probs, expected.log_probs, atol=1e-2, rtol=0)  # logits are 1,000 times


def test_parts_stand_together_up_to_so_many_rows_and_a_larger_one_alone() -> None:
    parts = [np.arange(4), np.arange(4, 8), np.arange(8, 12), np.arange(12, 40), np.arange(40, 42)]
    assert [[len(part) for part in together] for together in _together(parts, 8)] == [[4, 4], [4], [28], [2]]
    assert list(_together([], 8)) == []
