"""Returns and advantages of lists (Appendix A.3), with time as notes on equations (7) to (10) in the README say.

For t = 0..K-1: state s_t = (h, first t items), action g_(t+1), reward r_t = r(h, first t + 1 items), V(s_K) = 0.
"""

from __future__ import annotations

import torch


def discounted_returns(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return R_t = sum_(j < K - t) gamma^j r_(t+j), the target of V(s_t); shapes [..., K]."""
    return _discounted_sums(rewards, gamma)


def generalised_advantages(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, gae_lambda: float
) -> torch.Tensor:
    """Return A_t = sum_l (gamma lambda)^l delta_(t+l), delta_t = r_t + gamma V(s_(t+1)) - V(s_t) (equations 9, 10).

    Args:
        rewards: r_t, [..., K].
        values: V(s_t), [..., K].
        gamma: discount, 0..1.
        gae_lambda: 0 (one step ahead) to 1 (the whole rest of the list).

    Returns:
        [..., K], without gradient.
    """
    values = values.detach()
    next_values = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
    return _discounted_sums(rewards + gamma * next_values - values, gamma * gae_lambda)


def leave_one_out_advantages(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return R_t less the mean R_t of the other G - 1 lists of the same history: no value model is needed.

    Args:
        rewards: [B, G, K], G at least 2.
        gamma: discount, 0..1.
    """
    returns = discounted_returns(rewards, gamma).double()  # so that equal returns leave 0, not rounding
    n_lists = returns.shape[1]
    others = (returns.sum(dim=1, keepdim=True) - returns) / (n_lists - 1)
    return (returns - others).to(rewards.dtype)


def _discounted_sums(terms: torch.Tensor, discount: float) -> torch.Tensor:
    sums = terms.clone()
    for t in range(terms.shape[-1] - 2, -1, -1):
        sums[..., t] += discount * sums[..., t + 1]
    return sums
