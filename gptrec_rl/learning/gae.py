"""Returns and advantages of lists (Appendix A.3), with time as notes on equations (7) to (10) in docs/paper.md say.

For t = 0..K-1: state s_t = (h, first t items), action g_(t+1), reward r_t = r(h, first t + 1 items), V(s_K) = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class VTrace:
    """What V-trace corrects, [..., K], without gradient.

    Attributes:
        targets: v_t, what V(s_t) learns.
        advantages: A_t, not yet weighted by the item's own ratio.
    """

    targets: torch.Tensor
    advantages: torch.Tensor


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
    return _discounted_sums(_errors(rewards, values.detach(), gamma), gamma * gae_lambda)


def v_trace(
    rewards: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, gamma: float, gae_lambda: float
) -> VTrace:
    """Return V-trace's value targets and advantages (Espeholt et al. 2018, equation 1 with the lambda of its remark 2).

    v_t = V(s_t) + w_t delta_t + gamma lambda w_t (v_(t+1) - V(s_(t+1))), delta_t as in GAE;
    A_t = r_t + gamma (lambda v_(t+1) + (1 - lambda) V(s_(t+1))) - V(s_t). With weights of 1, A_t is GAE's advantage,
    v_t = V(s_t) + A_t, and with lambda = 1 v_t is the return.

    Args:
        rewards: r_t, [..., K].
        values: V(s_t), [..., K].
        weights: w_t, truncated ratios of policy to behaviour policy, both rho and c; [..., K].
        gamma: discount, 0..1.
        gae_lambda: 0 (one step ahead) to 1 (the whole rest of the list).
    """
    values = values.detach()
    errors = _errors(rewards, values, gamma)
    excess = _discounted_sums(weights * errors, gamma * gae_lambda * weights)  # v_t - V(s_t)
    return VTrace(values + excess, errors + gamma * gae_lambda * _next(excess))


def leave_one_out_advantages(returns: torch.Tensor) -> torch.Tensor:
    """Return R_t less the mean R_t of the other G - 1 lists of the same history: no value model is needed.

    Args:
        returns: R_t, [B, G, K], G at least 2.
    """
    exact = returns.double()  # so that equal returns leave 0, not rounding
    others = (exact.sum(dim=1, keepdim=True) - exact) / (exact.shape[1] - 1)
    return (exact - others).to(returns.dtype)


def _next(values: torch.Tensor) -> torch.Tensor:
    """Return the values of one item later, 0 after the last."""
    return torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)


def _errors(rewards: torch.Tensor, values: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return delta_t = r_t + gamma V(s_(t+1)) - V(s_t) (equation 10)."""
    return rewards + gamma * _next(values) - values


def _discounted_sums(terms: torch.Tensor, discounts: float | torch.Tensor) -> torch.Tensor:
    """Return S_t = terms_t + discount_t S_(t+1), [..., K]; discounts are one or [..., K]."""
    *earlier, last = terms.unbind(dim=-1)
    of_each: list[torch.Tensor | float]
    of_each = [*discounts.unbind(dim=-1)] if isinstance(discounts, torch.Tensor) else [discounts] * terms.shape[-1]
    sums = [last]
    for term, discount in zip(reversed(earlier), reversed(of_each[:-1]), strict=True):
        sums.append(term + discount * sums[-1])
    return torch.stack(sums[::-1], dim=-1)
