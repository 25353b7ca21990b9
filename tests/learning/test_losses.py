"""PPO's losses: by hand, against torch's distributions, and at their corners."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from gptrec_rl.learning import losses


def masked_choices(seed: int, n_masked: int) -> torch.Tensor:
    """Return log-probabilities over 6 items, [2, 3, 4, 6], the first n_masked at minus infinity."""
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    logits[..., :n_masked] = -math.inf
    return logits.log_softmax(-1)


def test_policy_loss_by_hand() -> None:
    behaviour = torch.tensor([[[0.5, 0.5, 0.5, 0.5]]]).log()
    now = torch.tensor([[[0.75, 0.25, 0.25, 0.55]]]).log()
    advantages = torch.tensor([[[2.0, 2.0, -1.0, -1.0]]])
    # Ratios 1.5, 0.5, 0.5, 1.1, clipped to 0.8..1.2.
    # min(1.5 x 2, 1.2 x 2) = 2.4; min(0.5 x 2, 0.8 x 2) = 1; min(-0.5, -0.8) = -0.8; min(-1.1, -1.1) = -1.1.
    got = losses.clipped_policy_loss(now, behaviour, advantages, 0.2)
    assert float(got.loss) == pytest.approx(-(2.4 + 1 - 0.8 - 1.1) / 4)
    assert got.clip_fraction == 0.75


def test_equal_policies_clip_nothing_and_follow_the_advantages() -> None:
    behaviour = masked_choices(0, 0)[..., 0]
    now = behaviour.clone().requires_grad_()
    advantages = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    got = losses.clipped_policy_loss(now, behaviour, advantages, 0.2)
    assert got.clip_fraction == 0
    assert got.loss.item() == pytest.approx(-advantages.mean().item(), abs=1e-6)
    got.loss.backward()
    assert now.grad is not None
    torch.testing.assert_close(now.grad, -advantages / advantages.numel())


@pytest.mark.parametrize(
    ("ratio", "advantage", "still_moves"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True)],
)
def test_a_ratio_past_the_clip_stops_earning_in_that_direction_alone(
    ratio: float, advantage: float, still_moves: bool
) -> None:
    now = torch.tensor([[[math.log(ratio)]]], requires_grad=True)
    losses.clipped_policy_loss(now, torch.zeros(1, 1, 1), torch.tensor([[[advantage]]]), 0.2).loss.backward()
    assert now.grad is not None
    assert bool(now.grad.abs() > 0) is still_moves


def test_value_loss_by_hand() -> None:
    values, returns, old = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 2.0])
    # Squared errors 1, 1, 4.
    assert float(losses.value_loss(values, returns, old, None)) == pytest.approx(2)
    # Moved at most 0.5 from the old values: 1, 2.5, 1.5, with errors 1, 0.25, 0.25; the larger ones are 1, 1, 4.
    assert float(losses.value_loss(values, returns, old, 0.5)) == pytest.approx(2)
    # A value that moved past its clip towards the return: 1 -> 1.9 counts as 1.5, so 0.25 and not 0.01.
    towards = losses.value_loss(torch.tensor([1.9]), torch.tensor([2.0]), torch.tensor([1.0]), 0.5)
    assert float(towards) == pytest.approx(0.25)


def test_a_value_past_its_clip_has_no_gradient() -> None:
    values = torch.tensor([1.9], requires_grad=True)
    losses.value_loss(values, torch.tensor([2.0]), torch.tensor([1.0]), 0.5).backward()
    assert values.grad is not None
    assert float(values.grad) == 0


@given(seed=st.integers(0, 2**16), n_masked=st.integers(0, 4))
def test_kl_is_that_of_torch(seed: int, n_masked: int) -> None:
    first, second = masked_choices(seed, n_masked), masked_choices(seed + 1, n_masked)
    one, other = (Categorical(logits=choices[..., n_masked:]) for choices in (first, second))
    assert float(losses.mean_kl(first, second)) == pytest.approx(float(kl_divergence(one, other).mean()), abs=1e-5)
    assert float(losses.mean_kl(first, first)) == 0


def test_masked_items_send_no_gradient() -> None:
    logits = torch.randn(1, 1, 2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masked = logits.masked_fill(torch.tensor([True, False, False, False, True]), -math.inf).log_softmax(-1)
    losses.mean_kl(masked, masked_choices(0, 0)[:1, :1, :2, :5]).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[..., [0, 4]] == 0).all()
    assert (logits.grad[..., 1:4] != 0).any()


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(2.0, 1.0), (2.2, 1.01), (1.9, 0.995), (100.0, 1.02), (0.0, 0.98)],  # error = kl / 2 - 1 within 0.2, times 0.1
)
def test_the_kl_weight_follows_the_kl(kl: float, expected: float) -> None:
    assert losses.adapted_kl_weight(1.0, kl, target=2.0) == pytest.approx(expected)


def test_normalised_by_hand() -> None:
    # Mean 3, squared deviations 4, 0, 4: standard deviation sqrt(8 / 3).
    expected = [-2 / math.sqrt(8 / 3), 0, 2 / math.sqrt(8 / 3)]
    assert losses.normalised(torch.tensor([1.0, 3.0, 5.0])).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1000.1, -7.7])
def test_equal_advantages_become_0(value: float) -> None:
    assert losses.normalised(torch.full((16, 7, 3), value)).abs().max() < 1e-6


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert losses.explained_variance(returns + 5, returns) == pytest.approx(1)  # a constant offset is no variance
    assert losses.explained_variance(torch.zeros(3), returns) == pytest.approx(0)
    assert losses.explained_variance(-returns, returns) == pytest.approx(-3)  # Var(2 R) = 4 Var(R)
    assert losses.explained_variance(returns, torch.full((3,), 0.5)) == 0
