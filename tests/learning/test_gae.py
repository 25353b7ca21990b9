"""Returns and advantages: by hand, by loops, and what discounts of 1 and 0 make of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.learning.gae import (
    discounted_returns,
    generalised_advantages,
    leave_one_out_advantages,
    v_trace,
)


def random_tensor(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_returns_by_hand() -> None:
    # t = 2: 4; t = 1: 2 + 0.5 x 4 = 4; t = 0: 1 + 0.5 x 4 = 3.
    assert discounted_returns(torch.tensor([[[1.0, 2.0, 4.0]]]), 0.5).tolist() == [[[3.0, 4.0, 4.0]]]


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 2.0, 4.0])
    values = torch.tensor([3.0, 1.0, 2.0])
    # delta_0 = 1 + 0.5 x 1 - 3 = -1.5; delta_1 = 2 + 0.5 x 2 - 1 = 2; delta_2 = 4 + 0.5 x 0 - 2 = 2.
    # With gamma lambda = 0.25: A_2 = 2; A_1 = 2 + 0.25 x 2 = 2.5; A_0 = -1.5 + 0.25 x 2.5 = -0.875.
    assert generalised_advantages(rewards, values, 0.5, 0.5).tolist() == [-0.875, 2.5, 2.0]


def test_one_item_is_its_reward_less_its_value() -> None:
    assert generalised_advantages(torch.tensor([[5.0]]), torch.tensor([[2.0]]), 0.9, 0.9).tolist() == [[3.0]]


@given(seed=st.integers(0, 2**16), k=st.integers(1, 7), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_advantages_are_the_double_sum_of_the_paper(seed: int, k: int, gamma: float, gae_lambda: float) -> None:
    rewards, values = random_tensor(seed, k), random_tensor(seed + 1, k)
    got = generalised_advantages(rewards, values, gamma, gae_lambda)
    v = [*values.tolist(), 0.0]
    deltas = [float(rewards[t]) + gamma * v[t + 1] - v[t] for t in range(k)]
    for t in range(k):
        expected = sum((gamma * gae_lambda) ** later * deltas[t + later] for later in range(k - t))
        assert float(got[t]) == pytest.approx(expected, abs=1e-4)


@given(seed=st.integers(0, 2**16), k=st.integers(1, 7))
def test_without_discount_an_advantage_is_the_return_less_the_value(seed: int, k: int) -> None:
    rewards, values = random_tensor(seed, 2, 3, k), random_tensor(seed + 1, 2, 3, k)
    rest = rewards.flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(generalised_advantages(rewards, values, 1, 1), rest - values, atol=1e-5, rtol=0)


def test_advantages_carry_no_gradient_and_change_no_input() -> None:
    rewards, values = torch.ones(3), torch.ones(3, requires_grad=True)
    assert not generalised_advantages(rewards, values, 0.9, 0.9).requires_grad
    assert rewards.tolist() == [1, 1, 1]


def test_leave_one_out_by_hand() -> None:
    rewards = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    # History 0, returns with gamma 1: [1, 1], [5, 3], [9, 5]. First list, t = 0: 1 - (5 + 9) / 2 = -6;
    # second: 5 - (1 + 9) / 2 = 0; third: 9 - (1 + 5) / 2 = 6. t = 1: 1 - 4 = -3, 3 - 3 = 0, 5 - 2 = 3.
    # History 1, returns [1, 0], [0, 0], [1, 1]: t = 0: 1 - 0.5, 0 - 1, 1 - 0.5; t = 1: 0 - 0.5, 0 - 0.5, 1 - 0.
    assert leave_one_out_advantages(discounted_returns(rewards, 1.0)).tolist() == [
        [[-6.0, -3.0], [0.0, 0.0], [6.0, 3.0]],
        [[0.5, -0.5], [-1.0, -0.5], [0.5, 1.0]],
    ]


@pytest.mark.parametrize("n_lists", [2, 3, 7, 8])
def test_equal_lists_have_no_advantage_at_all(n_lists: int) -> None:
    rewards = torch.tensor([0.1, 0.7, 0.3]).expand(5, n_lists, 3)
    assert (leave_one_out_advantages(discounted_returns(rewards, 0.99)) == 0).all()


def test_v_trace_by_hand() -> None:
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 1.0, 2.0])
    got = v_trace(rewards, values, torch.tensor([2.0, 0.5, 1.0]), 0.5, 0.5)
    # delta = -1.5, 2, 2, as above; weighted -3, 1, 2. v_t - V_t: 2; 1 + 0.25 x 0.5 x 2 = 1.25;
    # -3 + 0.25 x 2 x 1.25 = -2.375. A_t = delta_t + 0.25 (v_(t+1) - V_(t+1)): 2; 2 + 0.5 = 2.5; -1.5 + 0.3125.
    assert got.targets.tolist() == [0.625, 2.25, 4.0]
    assert got.advantages.tolist() == [-1.1875, 2.5, 2.0]


@given(seed=st.integers(0, 2**16), k=st.integers(1, 6), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_v_trace_is_the_sum_of_products_of_its_paper(seed: int, k: int, gamma: float, gae_lambda: float) -> None:
    rewards, values = random_tensor(seed, k), random_tensor(seed + 1, k)
    weights = random_tensor(seed + 2, k).exp().clamp(max=2)
    got = v_trace(rewards, values, weights, gamma, gae_lambda)
    v, w = [*values.tolist(), 0.0], weights.tolist()
    targets = [0.0] * (k + 1)
    for s in range(k):
        targets[s] = v[s]
        for t in range(s, k):
            trace = 1.0
            for i in range(s, t):
                trace *= gae_lambda * w[i]
            targets[s] += gamma ** (t - s) * trace * w[t] * (float(rewards[t]) + gamma * v[t + 1] - v[t])
    for t in range(k):
        ahead = gae_lambda * targets[t + 1] + (1 - gae_lambda) * v[t + 1]
        assert float(got.targets[t]) == pytest.approx(targets[t], abs=1e-4)
        assert float(got.advantages[t]) == pytest.approx(float(rewards[t]) + gamma * ahead - v[t], abs=1e-4)


@given(seed=st.integers(0, 2**16), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_v_trace_at_equal_weights_is_the_lambda_return_and_gae(seed: int, gamma: float, gae_lambda: float) -> None:
    rewards, values = random_tensor(seed, 2, 3, 4), random_tensor(seed + 1, 2, 3, 4)
    got = v_trace(rewards, values, torch.ones_like(values), gamma, gae_lambda)
    advantages = generalised_advantages(rewards, values, gamma, gae_lambda)
    torch.testing.assert_close(got.advantages, advantages, atol=1e-5, rtol=0)
    # G_t = r_t + gamma ((1 - lambda) V_(t+1) + lambda G_(t+1)), Sutton and Barto, equation 12.19.
    expected = rewards[..., 3]
    for t in range(3, -1, -1):
        if t < 3:
            expected = rewards[..., t] + gamma * ((1 - gae_lambda) * values[..., t + 1] + gae_lambda * expected)
        torch.testing.assert_close(got.targets[..., t], expected, atol=1e-5, rtol=0)
    whole = v_trace(rewards, values, torch.ones_like(values), gamma, 1.0).targets
    torch.testing.assert_close(whole, discounted_returns(rewards, gamma), atol=1e-5, rtol=0)


def test_v_trace_leaves_values_alone_where_the_policy_never_goes() -> None:
    values = torch.tensor([3.0, 1.0], requires_grad=True)
    got = v_trace(torch.tensor([9.0, 9.0]), values, torch.tensor([0.0, 1.0]), 1.0, 1.0)
    assert got.targets.tolist() == [3.0, 9.0]
    assert not got.targets.requires_grad
    assert not got.advantages.requires_grad
