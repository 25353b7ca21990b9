"""Cross-entropy over all items without ever holding the logits of all places."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from gptrec_rl.models.work_sizes import work_sizes_of

PLACES_AT_ONCE = 256
"""Logits of so many places, or a multiple where the sizes allow, are computed at a time: they stay in a processor's
caches. The last ones are padded, because processors prepare a matrix product anew for each new shape."""
SMALLEST = torch.finfo(torch.float32).tiny
"""A place's loss is 87 nats at most: a probability that fp32 takes for 0 is no divergence; its gradient is exact."""


def softmax_cross_entropy(
    states: torch.Tensor, item_weights: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the mean over places of -log softmax(states W)[target], in nats; [].

    Args:
        states: [N, D] float32.
        item_weights: output embeddings W, [I, D] float32.
        targets: [N] int64 in 1..I.
        dtype: of the gradient's matrix products; logits and softmax are fp32.
    """
    loss: torch.Tensor = _CrossEntropy.apply(states, item_weights, targets, dtype)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """With p = softmax(z) and target c, d(-log p_c) / dz = p - 1_c, which is at hand as soon as the loss is."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, item_weights: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        n_places = len(states)
        states = functional.pad(states, (0, 0, 0, -n_places % PLACES_AT_ONCE))
        targets = functional.pad(targets, (0, len(states) - n_places), value=1)
        of_states, of_weights = torch.empty_like(states), torch.zeros_like(item_weights)
        weights, inputs = item_weights.to(dtype), states.to(dtype)
        total = states.new_zeros(())
        n_logits = PLACES_AT_ONCE * len(item_weights)
        step = PLACES_AT_ONCE * max(1, work_sizes_of(states.device).logits_at_once // n_logits)
        for start in range(0, n_places, step):
            part, n_real = slice(start, start + step), n_places - start
            probabilities = (states[part] @ item_weights.T).softmax(dim=-1)
            places = targets[part, None] - 1
            chosen = probabilities.gather(1, places)
            total -= chosen[:n_real].clamp_min(SMALLEST).log().sum()
            of_logits = probabilities.scatter_(1, places, chosen - 1).to(dtype)
            of_logits[n_real:] = 0
            of_states[part] = of_logits @ weights
            of_weights += of_logits.T @ inputs[part]
        ctx.save_for_backward(of_states[:n_places], of_weights)
        return total / n_places

    @staticmethod
    def backward(ctx: Any, of_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_states, of_weights = ctx.saved_tensors
        scale = of_loss / len(of_states)
        return of_states * scale, of_weights * scale, None, None
