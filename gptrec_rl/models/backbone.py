"""Exact forward passes through a Hugging Face GPT-2 that use what Appendix B makes final.

A position id belongs to the token and attention is causal, so keys and values of a history never change while a list
is written behind it. A history is encoded once (`encode`), and any number of lists grow behind it as branches that see
the history and themselves (`extend`): token by token when decoding, all at once when learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch.nn import functional
from transformers import GPT2Model
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from gptrec_rl.models.packing import Packing
from gptrec_rl.models.sequence import HistoryTokens

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class EncodedHistories:
    """What lists need to know of B histories.

    Attributes:
        layers: keys and values of each layer, each [B, H, S, D / H] with H heads.
        is_real: [B, S] bool, False at padding.
        state: final hidden state after the separator, [B, D].
    """

    layers: Sequence[KeysValues]
    is_real: torch.Tensor
    state: torch.Tensor


def encode(gpt2: GPT2Model, history: HistoryTokens) -> EncodedHistories:
    """Run histories and separators; in the last layer only the separator needs more than keys and values.

    Attention sees the padded batch; everything else, most of the work, runs on packed tokens without padding.
    """
    packing = Packing.of(history.is_real)
    n_tokens = history.tokens.shape[1]
    is_causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=history.tokens.device).tril()
    # Padding sees itself, so that no row of the softmax is empty; nothing else sees padding.
    is_self = torch.eye(n_tokens, dtype=torch.bool, device=history.tokens.device)
    may_attend = is_causal & history.is_real[:, None, :] | is_self  # [B, S, S]
    tokens, positions = packing.pack(history.tokens), packing.pack(history.positions.expand_as(history.tokens))
    hidden = gpt2.drop(gpt2.wte(tokens) + gpt2.wpe(positions))  # [N, D]
    bias = torch.zeros_like(may_attend, dtype=hidden.dtype).masked_fill(~may_attend, float("-inf"))
    layers: list[KeysValues] = []
    for block in _blocks(gpt2)[:-1]:
        projected = packing.pad(_project(block, block.ln_1(hidden), 0, 3))  # [B, S, 3 D]
        queries, keys, values = (_heads(block, part) for part in projected.chunk(3, dim=-1))
        layers.append((keys, values))
        attended = _attend_to_history(block, queries, keys, values, bias).transpose(1, 2).flatten(2)
        hidden = _finish(block, hidden, packing.pack(attended))
    block = _blocks(gpt2)[-1]
    normed = block.ln_1(hidden)
    projected = packing.pad(_project(block, normed, 1, 3))  # [B, S, 2 D]
    keys, values = (_heads(block, part) for part in projected.chunk(2, dim=-1))
    layers.append((keys, values))
    separators = packing.separators
    queries = _heads(block, _project(block, normed[separators], 0, 1)[:, None])  # [B, H, 1, D / H]
    attended = _attend_to_history(block, queries, keys, values, bias[:, -1:]).transpose(1, 2).flatten(1)
    return EncodedHistories(layers, history.is_real, gpt2.ln_f(_finish(block, hidden[separators], attended)))


def extend(
    gpt2: GPT2Model,
    encoded: EncodedHistories,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    past: Sequence[KeysValues] | None = None,
) -> tuple[torch.Tensor, list[KeysValues]]:
    """Run the next S items of G lists a history, each list behind the history and its own earlier items.

    Args:
        gpt2: the backbone.
        encoded: the B histories.
        tokens: [B, G, S] int64.
        positions: position ids of the S items, [S] int64.
        past: what the previous call returned second; None at the start of the lists.

    Returns:
        Final hidden states, [B, G, S, D], and the keys and values of the lists so far, each [B, H, G, so far, D / H].
    """
    hidden = gpt2.drop(gpt2.wte(tokens) + gpt2.wpe(positions))  # [B, G, S, D]
    grown: list[KeysValues] = []
    for number, block in enumerate(_blocks(gpt2)):
        projected = _project(block, block.ln_1(hidden), 0, 3).chunk(3, dim=-1)
        queries, keys, values = (_branch_heads(block, part) for part in projected)  # [B, H, G, S, D / H]
        if past is not None:
            keys = torch.cat([past[number][0], keys], dim=3)
            values = torch.cat([past[number][1], values], dim=3)
        grown.append((keys, values))
        attended = _attend_to_both(block, queries, encoded.layers[number], encoded.is_real, (keys, values))
        hidden = _finish(block, hidden, attended.permute(0, 2, 3, 1, 4).flatten(3))
    return gpt2.ln_f(hidden), grown


def slate_states(
    gpt2: GPT2Model, history: HistoryTokens, slates: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Return the hidden states from which each of K items is chosen: after h, after h and g_1, ... [B, G, K, D].

    Args:
        gpt2: the backbone.
        history: B histories.
        slates: G lists a history, [B, G, K] int64.
        positions: position ids of the first K - 1 items, [K - 1] int64.
    """
    encoded = encode(gpt2, history)
    first = encoded.state[:, None, None].expand(-1, slates.shape[1], 1, -1)  # [B, G, 1, D]
    if slates.shape[2] == 1:
        return first
    later, _ = extend(gpt2, encoded, slates[:, :, :-1], positions)
    return torch.cat([first, later], dim=2)


def _attend_to_history(
    block: GPT2Block, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Attend with an additive bias [B, S', S], [B, H, S', D / H].

    Plain matrix products: on processors the backward pass of PyTorch's fused attention takes two to five times as long.
    """
    n_heads, width = queries.shape[1], queries.shape[-1]
    bias = bias[:, None].expand(-1, n_heads, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(bias, queries.flatten(0, 1) * width**-0.5, keys.flatten(0, 1).transpose(1, 2))
    probabilities = block.attn.attn_dropout(scores.softmax(dim=-1))
    return (probabilities @ values.flatten(0, 1)).unflatten(0, (-1, n_heads))


def _attend_to_both(
    block: GPT2Block, queries: torch.Tensor, prefix: KeysValues, is_real: torch.Tensor, own: KeysValues
) -> torch.Tensor:
    """Attend with one softmax to the shared history and to the branch's own items, [B, H, G, S, D / H]."""
    n_lists, n_new = queries.shape[2:4]
    queries = queries * queries.shape[-1] ** -0.5
    to_prefix = queries.flatten(2, 3) @ prefix[0].transpose(-1, -2)  # [B, H, G S, P]
    to_prefix = to_prefix.masked_fill(~is_real[:, None, None, :], float("-inf")).unflatten(2, (n_lists, n_new))
    to_own = queries @ own[0].transpose(-1, -2)  # [B, H, G, S, so far]
    n_own = to_own.shape[-1]
    is_later = torch.ones(n_new, n_own, dtype=torch.bool, device=queries.device).triu(n_own - n_new + 1)
    scores = torch.cat([to_prefix, to_own.masked_fill(is_later, float("-inf"))], dim=-1)
    probabilities = block.attn.attn_dropout(scores.softmax(dim=-1))
    from_prefix, from_own = probabilities.split([to_prefix.shape[-1], n_own], dim=-1)
    return (from_prefix.flatten(2, 3) @ prefix[1]).unflatten(2, (n_lists, n_new)) + from_own @ own[1]


def _blocks(gpt2: GPT2Model) -> list[GPT2Block]:
    return cast("list[GPT2Block]", list(gpt2.h))


def _project(block: GPT2Block, normed: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Apply the query (0), key (1) and value (2) projections start..stop-1 of a block: GPT-2 keeps the three as one."""
    width = normed.shape[-1]
    columns = slice(start * width, stop * width)
    return functional.linear(normed, block.attn.c_attn.weight[:, columns].T, block.attn.c_attn.bias[columns])


def _heads(block: GPT2Block, projected: torch.Tensor) -> torch.Tensor:
    """[B, S, D] -> [B, H, S, D / H]."""
    return projected.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)


def _branch_heads(block: GPT2Block, projected: torch.Tensor) -> torch.Tensor:
    """[B, G, S, D] -> [B, H, G, S, D / H]."""
    return projected.unflatten(-1, (block.attn.num_heads, -1)).permute(0, 3, 1, 2, 4)


def _finish(block: GPT2Block, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Add attention and feed-forward network to the residual stream."""
    hidden = hidden + block.attn.resid_dropout(block.attn.c_proj(attended))
    return hidden + block.mlp(block.ln_2(hidden))
