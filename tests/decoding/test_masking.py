"""The masked distribution that generation and learning share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gptrec_rl.decoding import masking
from gptrec_rl.decoding.masking import chosen_log_probs, mask_taken, slate_log_probs


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


@dataclass(frozen=True)
class Choices:
    """5 histories with 4 lists of 3 items of a catalogue of 9, and what the model thinks of them."""

    states: torch.Tensor
    item_weights: torch.Tensor
    may: torch.Tensor
    slates: torch.Tensor

    def chosen(self, temperature: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return chosen_log_probs(self.states, self.item_weights, self.may, self.slates, temperature, dtype)

    def by_autograd(self, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same two from all log-probabilities."""
        log_probs = slate_log_probs(self.states @ self.item_weights.T, self.may, self.slates, temperature)
        chosen = log_probs.gather(-1, self.slates[..., None] - 1).squeeze(-1)
        return chosen, -(log_probs.exp() * log_probs.masked_fill(log_probs.isneginf(), 0)).sum(dim=-1)


def draw_choices(dtype: torch.dtype = torch.float32) -> Choices:
    random = torch.Generator().manual_seed(0)
    states = torch.randn(5, 4, 3, 6, dtype=dtype, generator=random).requires_grad_()
    item_weights = torch.randn(9, 6, dtype=dtype, generator=random).requires_grad_()
    slates = torch.rand(5, 4, 9, generator=random).argsort(dim=-1)[:, :, :3] + 1
    may = torch.rand(5, 9, generator=random) < 0.5  # about half of the rest is seen
    may[torch.arange(5)[:, None, None], slates - 1] = True
    return Choices(states, item_weights, may, slates)


@pytest.mark.parametrize("rows_at_once", [1, 24, 128], ids=["a history at a time", "two", "all at once"])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_chosen_log_probs_and_entropies_are_those_of_the_whole_distribution(
    temperature: float, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "ROWS_AT_ONCE", rows_at_once)
    choices = draw_choices()
    assert not choices.may.all()
    for got, expected in zip(choices.chosen(temperature, torch.float32), choices.by_autograd(temperature), strict=True):
        assert got.shape == (5, 4, 3)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        for got, expected in zip(
            choices.chosen(temperature, torch.float32), choices.by_autograd(temperature), strict=True
        ):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


class Shapes(TorchDispatchMode):
    """Remembers the shape of every tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outcome = operation(*args, **(kwargs or {}))
        if isinstance(outcome, torch.Tensor):
            self.seen.add(tuple(outcome.shape))
        return outcome


@pytest.mark.parametrize("with_gradients", [True, False])
def test_the_whole_distribution_is_kept_for_gradients_alone(
    with_gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "ROWS_AT_ONCE", 12)  # a history
    choices = draw_choices()
    with torch.set_grad_enabled(with_gradients), Shapes() as shapes:
        outcomes = choices.chosen(1.0, torch.float32)
    assert (1, 4, 3, 9) in shapes.seen
    assert ((5, 4, 3, 9) in shapes.seen) == with_gradients
    assert all(outcome.requires_grad == with_gradients for outcome in outcomes)


@pytest.mark.parametrize(("logits", "shape"), [(1, (1, 4, 3, 9)), (24 * 9, (2, 4, 3, 9)), (10**6, (5, 4, 3, 9))])
def test_so_many_logits_are_made_at_once_as_the_sizes_allow(
    logits: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, cut_into: Callable[..., None]
) -> None:
    monkeypatch.setattr(masking, "ROWS_AT_ONCE", 12)  # a history
    cut_into(logits_at_once=logits)
    choices = draw_choices()
    with torch.no_grad(), Shapes() as shapes:
        choices.chosen(1.0, torch.float32)
    assert max((seen for seen in shapes.seen if len(seen) == 4 and seen[3] == 9), default=None) == shape


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.7, -2.0)], ids=["log-probability", "entropy", "both"])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_gradients_of_chosen_log_probs_are_those_of_autograd(temperature: float, weights: tuple[float, float]) -> None:
    choices = draw_choices()
    of_each = (
        torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(weights)[:, None, None, None]
    )

    def gradients(outcomes: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        loss = sum((w * x).sum() for w, x, weight in zip(of_each, outcomes, weights, strict=True) if weight)
        return torch.autograd.grad(loss, (choices.states, choices.item_weights))

    got, expected = gradients(choices.chosen(temperature, torch.float32)), gradients(choices.by_autograd(temperature))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_gradients_of_chosen_log_probs_are_those_of_finite_differences(temperature: float) -> None:
    choices = draw_choices(torch.float64)

    def both(states: torch.Tensor, item_weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return Choices(states, item_weights, choices.may, choices.slates).chosen(temperature, torch.float64)

    assert torch.autograd.gradcheck(both, (choices.states, choices.item_weights))


@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
def test_bf16_is_for_the_backward_pass_alone_and_stays_near(entropy_weight: float) -> None:
    choices = draw_choices()
    exact, near = choices.chosen(1.0, torch.float32), choices.chosen(1.0, torch.bfloat16)
    assert all(torch.equal(one, other) for one, other in zip(exact, near, strict=True))
    leaves = (choices.states, choices.item_weights)
    gradients = [
        torch.autograd.grad(log_probs.sum() + (entropy_weight * entropies.sum() if entropy_weight else 0), leaves)
        for log_probs, entropies in (exact, near)
    ]
    for one, other in zip(*gradients, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9995


def test_bf16_tells_an_item_that_is_almost_certain_from_one_that_is() -> None:
    states, item_weights = torch.ones(1, 1, 1, 1).requires_grad_(), torch.tensor([[8.0], [0.0]])
    log_probs, _ = chosen_log_probs(
        states,
        item_weights,
        torch.ones(1, 2, dtype=torch.bool),
        torch.ones(1, 1, 1, dtype=torch.long),
        1,
        torch.bfloat16,
    )
    log_probs.sum().backward()
    chance_of_other = 1 / (1 + math.exp(8))  # a tenth of what bf16 resolves around 1
    assert states.grad.item() == pytest.approx(8 * chance_of_other, rel=0.01)


def test_the_only_item_left_is_certain() -> None:
    states, item_weights = torch.randn(1, 1, 1, 4), torch.randn(3, 4).requires_grad_()
    may = torch.tensor([[False, True, False]])
    log_probs, entropies = chosen_log_probs(states, item_weights, may, torch.tensor([[[2]]]))
    assert (log_probs.item(), entropies.item()) == (0, 0)
    (log_probs + entropies).sum().backward()
    assert (item_weights.grad == 0).all()


def test_entropy_by_hand() -> None:
    # Equal logits: 2 items may stand in the first list and 4 in the second.
    may = torch.tensor([[True, True, False, False], [True, True, True, True]])
    _, entropies = chosen_log_probs(
        torch.zeros(2, 1, 1, 3), torch.zeros(4, 3), may, torch.ones(2, 1, 1, dtype=torch.long)
    )
    assert entropies.flatten().tolist() == pytest.approx([math.log(2), math.log(4)])
