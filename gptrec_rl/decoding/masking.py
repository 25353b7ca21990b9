"""The policy's distribution: a softmax over what may still be recommended.

It is one and the same in generation, supervised learning and PPO; were it not, ratios at equal weights would leave 1.
"""

from __future__ import annotations

import torch


def mask_taken(logits: torch.Tensor, may: torch.Tensor, slates: torch.Tensor) -> torch.Tensor:
    """Put minus infinity where an item may not stand.

    Args:
        logits: [B, G, K, I], the choice of each of the K places.
        may: [B, I] bool, True for items that may be recommended (not those of the whole history).
        slates: the lists, [B, G, K] int64; items of earlier places may not come again.

    Returns:
        [B, G, K, I].
    """
    masked = logits.masked_fill(~may[:, None, None, :], float("-inf"))
    n_histories, n_lists, k = slates.shape
    later, earlier = torch.tril_indices(k, k, -1, device=logits.device)
    histories = torch.arange(n_histories, device=logits.device)[:, None, None]
    lists = torch.arange(n_lists, device=logits.device)[None, :, None]
    masked[histories, lists, later, slates[:, :, earlier] - 1] = float("-inf")
    return masked


def slate_log_probs(
    logits: torch.Tensor, may: torch.Tensor, slates: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return log pi(g_i | h, g^(i-1)) of every item at every place (equation 3), [B, G, K, I] float32.

    Arguments as in `mask_taken`; minus infinity where an item may not stand.
    """
    return torch.log_softmax(mask_taken(logits, may, slates) / temperature, dim=-1, dtype=torch.float32)
