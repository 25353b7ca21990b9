"""Cross-entropy in blocks against PyTorch's own over all places at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from gptrec_rl.learning import cross_entropy
from gptrec_rl.learning.cross_entropy import softmax_cross_entropy


def draw(n_places: int = 37) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    states = torch.randn(n_places, 8, generator=random, requires_grad=True)
    weights = torch.randn(20, 8, generator=random, requires_grad=True)
    return states, weights, torch.randint(1, 21, (n_places,), generator=random)


@pytest.mark.parametrize(("at_once", "logits_at_once"), [(1, 0), (10, 0), (10, 400), (10, 4000), (37, 0), (512, 0)])
def test_value_and_gradients_are_pytorchs(
    at_once: int, logits_at_once: int, monkeypatch: pytest.MonkeyPatch, cut_into: Callable[..., None]
) -> None:
    monkeypatch.setattr(cross_entropy, "PLACES_AT_ONCE", at_once)
    cut_into(logits_at_once=logits_at_once)  # of 20 items
    states, weights, targets = draw()
    loss = softmax_cross_entropy(states, weights, targets)
    expected = functional.cross_entropy(states @ weights.T, targets - 1)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    # Of thrice the loss, so that what comes from behind matters.
    of_loss, of_expected = (torch.autograd.grad(3 * value, (states, weights)) for value in (loss, expected))
    for ours, theirs in zip(of_loss, of_expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_bf16_is_for_the_gradients_products_alone() -> None:
    states, weights, targets = draw()
    exact, rough = (softmax_cross_entropy(states, weights, targets, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(exact, rough)
    for ours, theirs in zip(
        torch.autograd.grad(rough, (states, weights)), torch.autograd.grad(exact, (states, weights)), strict=True
    ):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.01 * theirs.norm()


def test_equal_logits_cost_the_logarithm_of_their_number() -> None:
    loss = softmax_cross_entropy(torch.zeros(3, 8), torch.randn(20, 8), torch.tensor([1, 20, 7]))
    assert loss.item() == pytest.approx(2.995732)  # ln 20


def test_a_target_that_fp32_gives_no_probability_has_a_finite_loss_and_its_gradient() -> None:
    states = torch.tensor([[1.0]], requires_grad=True)
    item_weights = torch.tensor([[200.0], [0.0]])  # softmax: (1, e^-200)
    loss = softmax_cross_entropy(states, item_weights, torch.tensor([2]))
    loss.backward()
    assert 80 < loss.item() < 90
    assert states.grad is not None
    assert states.grad.item() == pytest.approx(200.0)
