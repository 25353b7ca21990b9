"""The policy's distribution: a softmax over what may still be recommended.

It is one and the same in generation, supervised learning and PPO; were it not, ratios at equal weights would leave 1.
"""

from __future__ import annotations

from typing import Any

import torch

from gptrec_rl.models.work_sizes import work_sizes_of

ROWS_AT_ONCE = 128
"""Logits of about so many choices, or more where the sizes allow, are computed at a time: they stay in a processor's
caches."""
NEVER = -1e30
"""Stands for minus infinity where 0 times it has to be 0."""


def mask_taken(
    logits: torch.Tensor, may: torch.Tensor, slates: torch.Tensor, never: float = float("-inf")
) -> torch.Tensor:
    """Put minus infinity where an item may not stand, in place.

    Args:
        logits: [B, G, K, I], the choice of each of the K places; changed and returned.
        may: [B, I] bool, True for items that may be recommended (not those of the whole history).
        slates: the lists, [B, G, K] int64; items of earlier places may not come again.
        never: what to put.

    Returns:
        [B, G, K, I].
    """
    # Added rather than filled in, which takes five times as long where the mask is repeated for each place.
    logits += torch.zeros_like(may, dtype=logits.dtype).masked_fill_(~may, never)[:, None, None]
    n_histories, n_lists, k = slates.shape
    later, earlier = torch.tril_indices(k, k, -1, device=logits.device)
    histories = torch.arange(n_histories, device=logits.device)[:, None, None]
    lists = torch.arange(n_lists, device=logits.device)[None, :, None]
    logits[histories, lists, later, slates[:, :, earlier] - 1] = never
    return logits


def slate_log_probs(
    logits: torch.Tensor, may: torch.Tensor, slates: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return log pi(g_i | h, g^(i-1)) of every item at every place (equation 3), [B, G, K, I] float32.

    Arguments as in `mask_taken`, but the logits are left alone; minus infinity where an item may not stand.
    """
    return torch.log_softmax(mask_taken(logits / temperature, may, slates), dim=-1)


def chosen_log_probs(
    states: torch.Tensor,
    item_weights: torch.Tensor,
    may: torch.Tensor,
    slates: torch.Tensor,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of the lists' own items (equation 3) and the entropies of their choices.

    The same numbers as from `slate_log_probs`, without ever keeping more of [B, G, K, I] than the probabilities, for
    the backward pass.

    Args:
        states: from which each item is chosen, [B, G, K, D] float32.
        item_weights: output embeddings, [I, D] float32.
        may: [B, I] bool, True for items that may be recommended.
        slates: [B, G, K] int64.
        temperature: divides the logits.
        dtype: of the probabilities and matrix products of the backward pass; logits and softmax are fp32.

    Returns:
        log-probabilities and entropies in nats, both [B, G, K] float32; gradients flow through both.
    """
    both: tuple[torch.Tensor, torch.Tensor] = _ChosenLogProbs.apply(  # type: ignore[no-untyped-call]
        states, item_weights, may, slates, temperature, dtype if torch.is_grad_enabled() else None
    )
    return both


class _ChosenLogProbs(torch.autograd.Function):
    """Softmax, choice and entropy of many places.

    With p = softmax(z / temperature), H its entropy and c the chosen item:
    d log p_c / dz = (1_c - p) / temperature and dH / dz = -p (log p + H) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        item_weights: torch.Tensor,
        may: torch.Tensor,
        slates: torch.Tensor,
        temperature: float,
        dtype: torch.dtype | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n_histories, n_lists, k = slates.shape
        log_probs, entropies = states.new_empty(slates.shape), states.new_empty(slates.shape)
        kept = states.new_empty((*slates.shape, len(item_weights)), dtype=dtype) if dtype else None
        n_choices = max(ROWS_AT_ONCE, work_sizes_of(states.device).logits_at_once // len(item_weights))
        step = max(1, n_choices // (n_lists * k))
        for start in range(0, n_histories, step):
            part = slice(start, start + step)
            logits = torch.nn.functional.linear(states[part], item_weights)  # [b, G, K, I]
            if temperature != 1:
                logits /= temperature
            mask_taken(logits, may[part], slates[part], NEVER)
            logits -= logits.amax(dim=-1, keepdim=True)
            probabilities = logits.exp()
            total = probabilities.sum(dim=-1)
            probabilities /= total[..., None]
            chosen = logits.gather(-1, slates[part, ..., None] - 1).squeeze(-1)
            log_probs[part] = torch.where(chosen > NEVER / 2, chosen - total.log(), float("-inf"))
            if kept is not None:
                kept[part] = probabilities
            entropies[part] = total.log() - (probabilities.mul_(logits)).sum(dim=-1)
        if kept is not None:  # p - 1_c, rounded after the difference
            _put(kept, slates, log_probs.expm1())
        ctx.save_for_backward(states, item_weights, slates, kept, log_probs, entropies)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return log_probs, entropies

    @staticmethod
    def backward(
        ctx: Any, of_log_probs: torch.Tensor | None, of_entropies: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        states, item_weights, slates, kept, log_probs, entropies = ctx.saved_tensors
        factors = torch.zeros_like(log_probs) if of_log_probs is None else -of_log_probs
        # Of each row, and applied to its D columns rather than to the I columns of its logits.
        of_logits, factors = kept, factors[..., None] / ctx.temperature
        if of_entropies is not None:
            probabilities = _put(kept.clone(), slates, log_probs.exp())
            inner = torch.special.xlogy(probabilities, probabilities)
            inner.add_(probabilities.mul_(entropies[..., None].to(kept.dtype)))
            of_logits = kept * factors.to(kept.dtype) - inner.mul_(
                (of_entropies[..., None] / ctx.temperature).to(kept.dtype)
            )
            factors = torch.ones_like(factors)
        of_logits = of_logits.flatten(0, 2)
        of_states = (of_logits @ item_weights.to(kept.dtype)).to(states.dtype).view_as(states) * factors
        of_weights = (of_logits.T @ (states * factors).flatten(0, 2).to(kept.dtype)).to(item_weights.dtype)
        return of_states, of_weights, None, None, None, None


def _put(of_items: torch.Tensor, slates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Put values [B, G, K] where the chosen items stand in [B, G, K, I], in place.

    `scatter_` would copy all of a bf16 tensor to fp32 and back.
    """
    places = slates.flatten() - 1
    rows = torch.arange(len(places), device=places.device)
    of_items.flatten(0, -2)[rows, places] = values.flatten().to(of_items.dtype)
    return of_items
