"""PPO's losses (Appendix A.3): pure functions, means over lists and places, all to be minimised.

All log-probabilities are of the masked distribution; full ones are [..., I] with minus infinity where an item may not
stand, the others are those of the chosen items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PolicyLoss:
    """Equation (12), or what replaces it.

    Attributes:
        loss: scalar with gradient.
        clip_fraction: share of ratios past the bounds that the loss sets them, 0..1.
    """

    loss: torch.Tensor
    clip_fraction: float


def clipped_policy_loss(
    log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor, advantages: torch.Tensor, epsilon: float
) -> PolicyLoss:
    """Return -mean min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A) (equations 11, 12); all [B, G, K]."""
    ratios = (log_probs - behaviour_log_probs).exp()
    clipped = ratios.clamp(1 - epsilon, 1 + epsilon)
    loss = -torch.minimum(ratios * advantages, clipped * advantages).mean()
    clip_fraction = ((ratios.detach() - 1).abs() > epsilon).float().mean().item()
    return PolicyLoss(loss, clip_fraction)


def value_loss(
    values: torch.Tensor, returns: torch.Tensor, old_values: torch.Tensor, clip: float | None
) -> torch.Tensor:
    """Return the mean squared error to the returns (equation 8, as a positive mean); all [B, G, K].

    With `clip`, the larger of that and the error of values that moved at most `clip` from `old_values`.
    """
    errors = (values - returns) ** 2
    if clip is not None:
        errors = torch.maximum(errors, (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2)
    return errors.mean()


def mean_kl(log_probs: torch.Tensor, reference_log_probs: torch.Tensor) -> torch.Tensor:
    """Return the mean KL(policy || reference) of the choices in nats, exact; both [..., I], with the same mask."""
    difference = (log_probs - reference_log_probs).masked_fill(log_probs.isneginf(), 0.0)
    return (log_probs.exp() * difference).sum(dim=-1).mean()


def adapted_kl_weight(weight: float, kl: float, target: float) -> float:
    """Move the KL weight towards what holds the KL at its target (Ziegler et al. 2019, section 2.2)."""
    error = min(0.2, max(-0.2, kl / target - 1))
    return weight * (1 + 0.1 * error)


def normalised(advantages: torch.Tensor) -> torch.Tensor:
    """Return advantages with mean 0 and standard deviation 1; a batch of equal ones becomes 0."""
    exact = advantages.double()  # in fp32 the mean of equal values is not that value, and dividing blows the rest up
    centred = exact - exact.mean()
    return (centred / (centred.std(correction=0) + 1e-8)).to(advantages.dtype)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """Return 1 - Var(returns - values) / Var(returns), at most 1; 0 for constant returns."""
    variance = returns.var(correction=0)
    if variance == 0:
        return 0.0
    return float(1 - (returns - values).var(correction=0) / variance)
