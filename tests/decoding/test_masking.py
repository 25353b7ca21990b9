"""The masked distribution that generation and learning share."""

from __future__ import annotations

import math

import pytest
import torch

from gptrec_rl.decoding.masking import mask_taken, slate_log_probs


def test_places_lose_seen_items_and_the_lists_earlier_ones() -> None:
    may = torch.tensor([[True, False, True, True], [True, True, True, True]])  # history 0 has item 2
    slates = torch.tensor([[[3, 1, 4], [1, 4, 3]], [[4, 3, 2], [2, 1, 4]]])
    masked = mask_taken(torch.zeros(2, 2, 3, 4), may, slates)
    taken = {
        (row, number, place): [item for item in range(1, 5) if masked[row, number, place, item - 1] == -math.inf]
        for row in range(2)
        for number in range(2)
        for place in range(3)
    }
    assert taken == {
        (0, 0, 0): [2], (0, 0, 1): [2, 3], (0, 0, 2): [1, 2, 3],
        (0, 1, 0): [2], (0, 1, 1): [1, 2], (0, 1, 2): [1, 2, 4],
        (1, 0, 0): [], (1, 0, 1): [4], (1, 0, 2): [3, 4],
        (1, 1, 0): [], (1, 1, 1): [2], (1, 1, 2): [1, 2],
    }  # fmt: skip


def test_log_probs_are_a_tempered_softmax_over_what_is_left() -> None:
    logits = torch.tensor([1.0, 5.0, 3.0, 2.0]).log().mul(2).expand(1, 1, 2, 4)
    may = torch.tensor([[True, False, True, True]])
    log_probs = slate_log_probs(logits, may, torch.tensor([[[3, 1]]]), temperature=2.0)
    # exp(2 log x / 2) = x, item 2 is seen: 1 : 3 : 2, then, with item 3 taken, 1 : 2.
    assert log_probs[0, 0, 0].exp().tolist() == pytest.approx([1 / 6, 0, 3 / 6, 2 / 6])
    assert log_probs[0, 0, 1].exp().tolist() == pytest.approx([1 / 3, 0, 0, 2 / 3])


def test_gradients_reach_open_items_alone_and_are_finite() -> None:
    logits = torch.randn(1, 1, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_probs = slate_log_probs(logits, torch.tensor([[True, False, True, True]]), torch.tensor([[[3, 1]]]))
    (log_probs[0, 0, 0, 2] + log_probs[0, 0, 1, 0]).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, 0, 0] != 0).tolist() == [True, False, True, True]
    assert (logits.grad[0, 0, 1] != 0).tolist() == [True, False, False, True]


def test_one_place_has_no_earlier_items() -> None:
    masked = mask_taken(torch.zeros(1, 2, 1, 3), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[[1], [2]]]))
    assert (masked == 0).all()
