"""Learning from lists that an older policy wrote: how far off they are, and losses that correct for it.

mu is the behaviour policy, which wrote the lists, pi the policy that learns from them; a ratio is pi / mu of one item.
Each correction replaces the paper's clip. Pure functions; log-probabilities are those of the chosen items, [B, G, K].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gptrec_rl.config import PpoConfig
from gptrec_rl.learning.losses import PolicyLoss, clipped_policy_loss


@dataclass(frozen=True)
class Drift:
    """How far the policy is from the one that wrote a batch, whatever the correction.

    Attributes:
        approx_kl: mean of ratio - 1 - log ratio, an estimate of KL(behaviour || policy) in nats.
        ratio_error: largest |ratio - 1|.
        effective_sample_size: of the batch's items, as a share of them, 1 / N..1; see `effective_sample_size`.
    """

    approx_kl: float
    ratio_error: float
    effective_sample_size: float


@torch.no_grad()
def drift(log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor) -> Drift:
    """Measure how far the policy is from the one that wrote the lists; both [B, G, K]."""
    log_ratios = log_probs - behaviour_log_probs
    ratios = log_ratios.exp()
    approx_kl = (ratios - 1 - log_ratios).mean().item()  # http://joschu.net/blog/kl-approx.html, k3
    return Drift(approx_kl, (ratios - 1).abs().max().item(), effective_sample_size(log_ratios))


def effective_sample_size(log_ratios: torch.Tensor) -> float:
    """Return (sum w)^2 / (N sum w^2) of the ratios w of all N = B G K items (Kong, 1992).

    1 for equal ratios, 1 / N where one outweighs all others; each item counts by itself, not by its list's product.
    """
    exact = log_ratios.flatten().double()  # in logarithms no ratio overflows
    log_share = 2 * exact.logsumexp(0) - (2 * exact).logsumexp(0) - math.log(len(exact))
    return log_share.exp().item()


def policy_loss(
    config: PpoConfig,
    log_probs: torch.Tensor,
    behaviour_log_probs: torch.Tensor,
    proximal_log_probs: torch.Tensor,
    advantages: torch.Tensor,
) -> PolicyLoss:
    """Return the loss that `config.correction` names; all tensors [B, G, K].

    Args:
        config: its `clip` and `truncation` are the bounds.
        log_probs: of the policy, with gradient.
        behaviour_log_probs: of the policy that wrote the lists.
        proximal_log_probs: of the policy at the first pass over this batch, without gradient.
        advantages: V-trace's own for `vtrace`, whose loss is then that of `truncated`.
    """
    if config.correction == "clip":
        return clipped_policy_loss(log_probs, behaviour_log_probs, advantages, config.clip)
    if config.correction == "decoupled":
        weights = truncated_weights(proximal_log_probs, behaviour_log_probs, config.truncation)
        # A weight is positive, so that it may stand inside of the clip's minimum.
        return clipped_policy_loss(log_probs, proximal_log_probs, weights * advantages, config.clip)
    return truncated_policy_loss(log_probs, behaviour_log_probs, advantages, config.truncation)


def truncated_weights(log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor, truncation: float) -> torch.Tensor:
    """Return min(pi / mu, truncation), without gradient; all [B, G, K]."""
    return (log_probs.detach() - behaviour_log_probs).exp().clamp(max=truncation)


def truncated_policy_loss(
    log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor, advantages: torch.Tensor, truncation: float
) -> PolicyLoss:
    """Return -mean min(pi / mu, truncation) A log pi, the weight without gradient; all [B, G, K].

    Its `clip_fraction` is the share of ratios above the truncation.
    """
    weights = truncated_weights(log_probs, behaviour_log_probs, truncation)
    cut = log_probs.detach() - behaviour_log_probs > math.log(truncation)
    return PolicyLoss(-(weights * advantages * log_probs).mean(), cut.float().mean().item())
