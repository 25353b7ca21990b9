"""Corrections for lists of an older policy: by hand, by autograd, and equal where there is nothing to correct."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.config import Correction, PpoConfig
from gptrec_rl.learning import corrections, losses

CORRECTIONS: tuple[Correction, ...] = ("clip", "truncated", "vtrace", "decoupled")


def config_of(correction: Correction, truncation: float = 2.0) -> PpoConfig:
    return PpoConfig(correction=correction, truncation=truncation, baseline="value", passes=2)


def row(*probabilities: float) -> torch.Tensor:
    return torch.tensor([[probabilities]]).log()


def random_log_probs(seed: int) -> torch.Tensor:
    return -torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * 3


def random_advantages(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))


def gradient(loss: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss, at)
    return found


# Losses


def test_truncated_weights_by_hand() -> None:
    behaviour, now = row(0.2, 0.5, 0.5), row(0.8, 0.25, 0.5).requires_grad_()
    # Ratios 4, 0.5, 1 become weights 2, 0.5, 1; with advantages 1, 2, -1 the products are 2, 1, -1.
    got = corrections.truncated_policy_loss(now, behaviour, torch.tensor([[[1.0, 2.0, -1.0]]]), 2.0)
    assert got.loss.item() == pytest.approx(-(2 * math.log(0.8) + math.log(0.25) - math.log(0.5)) / 3)
    assert gradient(got.loss, now).flatten().tolist() == pytest.approx([-2 / 3, -1 / 3, 1 / 3])
    assert got.clip_fraction == pytest.approx(1 / 3)


def test_decoupled_ppo_by_hand() -> None:
    behaviour, proximal = row(0.2, 0.5, 0.5, 0.4), row(0.8, 0.25, 0.5, 0.4)
    now = row(0.88, 0.375, 0.25, 0.28).requires_grad_()
    # Weights proximal / behaviour 4, 0.5, 1, 1, truncated to 2, 0.5, 1, 1; ratios now / proximal 1.1, 1.5, 0.5, 0.7.
    # 2 min(1.1, 1.1) = 2.2; 0.5 min(1.5, 1.2) = 0.6; min(-0.5, -0.8) = -0.8; min(0.7, 0.8) = 0.7.
    advantages = torch.tensor([[[1.0, 1.0, -1.0, 1.0]]])
    got = corrections.policy_loss(config_of("decoupled"), now, behaviour, proximal, advantages)
    assert got.loss.item() == pytest.approx(-(2.2 + 0.6 - 0.8 + 0.7) / 4)
    assert gradient(got.loss, now).flatten().tolist() == pytest.approx([-2.2 / 4, 0, 0, -0.7 / 4])
    assert got.clip_fraction == 0.75


@given(seed=st.integers(0, 2**16))
def test_untruncated_weights_have_the_gradient_of_importance_sampling(seed: int) -> None:
    now, behaviour, advantages = (
        random_log_probs(seed).requires_grad_(),
        random_log_probs(seed + 1),
        random_advantages(seed),
    )
    got = corrections.truncated_policy_loss(now, behaviour, advantages, math.inf)
    sampled = -((now - behaviour).exp() * advantages).mean()  # d ratio = ratio d log pi
    torch.testing.assert_close(gradient(got.loss, now), gradient(sampled, now))
    assert got.clip_fraction == 0


@given(seed=st.integers(0, 2**16))
def test_decoupled_from_the_behaviour_policy_itself_is_the_clip(seed: int) -> None:
    now, behaviour, advantages = random_log_probs(seed), random_log_probs(seed + 1), random_advantages(seed)
    decoupled, clip = (
        corrections.policy_loss(config_of(correction), now, behaviour, behaviour, advantages)
        for correction in ("decoupled", "clip")
    )
    assert decoupled == clip
    assert clip.loss == losses.clipped_policy_loss(now, behaviour, advantages, 0.2).loss


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("truncation", [1.0, 2.0])
def test_at_equal_weights_every_correction_is_the_policy_gradient(correction: Correction, truncation: float) -> None:
    now, advantages = random_log_probs(0).requires_grad_(), random_advantages(1)
    old = now.detach()
    got = corrections.policy_loss(config_of(correction, truncation), now, old, old, advantages)
    expected = gradient(-(advantages * now).mean(), now)
    torch.testing.assert_close(gradient(got.loss, now), expected)
    assert got.clip_fraction == 0


@pytest.mark.parametrize("correction", ["truncated", "vtrace", "decoupled"])
def test_no_weight_exceeds_the_truncation(correction: Correction) -> None:
    now = row(0.9).requires_grad_()
    pushes = [
        float(gradient(corrections.policy_loss(config, now, row(0.1), now.detach(), torch.ones(1, 1, 1)).loss, now))
        for config in (config_of(correction, level) for level in (1.0, 3.0, 100.0))
    ]
    assert pushes == pytest.approx([-1, -3, -9])  # 0.9 / 0.1 = 9


def test_the_policy_of_the_first_pass_moves_decoupled_ppo_alone() -> None:
    now, behaviour, advantages = random_log_probs(0), random_log_probs(1), random_advantages(2)
    for correction in CORRECTIONS:
        one, other = (
            corrections.policy_loss(config_of(correction), now, behaviour, random_log_probs(seed), advantages).loss
            for seed in (3, 4)
        )
        assert (one != other) == (correction == "decoupled"), correction


# How far off a batch is


def test_drift_by_hand() -> None:
    got = corrections.drift(row(0.75, 0.25, 0.25, 0.55), row(0.5, 0.5, 0.5, 0.5))
    # Ratios 1.5, 0.5, 0.5, 1.1: their sum 3.6, the sum of their squares 2.25 + 0.25 + 0.25 + 1.21 = 3.96.
    k3 = [0.5 - math.log(1.5), -0.5 - math.log(0.5), -0.5 - math.log(0.5), 0.1 - math.log(1.1)]
    assert got.approx_kl == pytest.approx(sum(k3) / 4, rel=1e-5)
    assert got.ratio_error == pytest.approx(0.5)
    assert got.effective_sample_size == pytest.approx(3.6**2 / (4 * 3.96))


def test_equal_policies_have_no_drift() -> None:
    log_probs = random_log_probs(0)
    assert corrections.drift(log_probs, log_probs) == corrections.Drift(0.0, 0.0, pytest.approx(1.0, abs=1e-12))


def test_the_approximate_kl_estimates_the_exact_one() -> None:
    behaviour, now = (torch.randn(6, generator=torch.Generator().manual_seed(seed)).log_softmax(0) for seed in (3, 4))
    drawn = torch.multinomial(behaviour.exp(), 50_000, True, generator=torch.Generator().manual_seed(0))
    got = corrections.drift(now[drawn], behaviour[drawn])
    assert got.approx_kl == pytest.approx(float(losses.mean_kl(behaviour, now)), rel=0.05)


@pytest.mark.parametrize("log_ratio", [-800.0, 0.0, 3.0, 800.0])
def test_equal_weights_of_any_size_are_a_whole_sample(log_ratio: float) -> None:
    assert corrections.effective_sample_size(torch.full((2, 3, 4), log_ratio)) == pytest.approx(1)


@pytest.mark.parametrize("n_items", [1, 2, 24])
def test_one_dominating_weight_is_a_sample_of_one(n_items: int) -> None:
    log_ratios = torch.zeros(n_items)
    log_ratios[0] = 1000.0  # its exponential is infinite
    assert corrections.effective_sample_size(log_ratios) == pytest.approx(1 / n_items)


@given(seed=st.integers(0, 2**16))
def test_the_effective_sample_size_is_that_of_the_weights_and_within_its_bounds(seed: int) -> None:
    log_ratios = random_log_probs(seed) - random_log_probs(seed + 1)
    weights = log_ratios.double().exp()
    got = corrections.effective_sample_size(log_ratios)
    assert got == pytest.approx(float(weights.sum() ** 2 / (weights**2).sum()) / weights.numel())
    assert 1 / weights.numel() <= got <= 1
