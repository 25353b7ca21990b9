"""The engine: exact passes through a GPT-2 that use what Appendix B makes final.

A position id belongs to the token and attention is causal, so nothing that was computed for a history, or for an
earlier item of a list, changes while the list grows. Three things follow, and all of them are exact:

- **A history is run once** (`encode`), and what is kept of it are its keys and values. Of the last layer these are all
  that anything needs, but for the separator, from whose state the first item is chosen.
- **Lists are branches** behind the history that they share: a token sees the history and the earlier items of its own
  list, and a mask hides the other lists. When decoding, lists grow an item at a time, or a tree of guesses, behind the
  history's keys and values (`Branches`); when learning, a history and all its lists are one row (`slate_states`).
- **Only the separator and the first K - 1 items of a list choose an item.** No other state leaves the last layer.

With b rows of width w in a bucket, H heads, width D and d = D / H, what lives where:

| tensor | shape | precision |
|---|---|---|
| hidden states, N tokens in buckets | [N, D] | of the products; fp32 on a GPU |
| queries, keys, values of a bucket | [b H, w, d] | of the products |
| learning: scores of a bucket; of the last layer | [b H, w, w]; [b H, 1 + G (K - 1), w] | of the products |
| decoding: keys and values of L layers, with room for tokens behind | [L, 2, b, H, w + room, d] | of the products |

Matrix products run in bf16 or fp32 (`precision.product_dtype`), the last norm in fp32, as do the head and its softmax
(`decoding`). On a processor the residual stream is as precise as the products: half the bytes, and nothing to convert.
Attention of `encode` and `Branches` is PyTorch's fused one, which is the fastest forward on processors; that of
`states` and `slate_states`, which are for learning, is written as plain matrix products (`attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from gptrec_rl.models.attention import attend, by_head
from gptrec_rl.models.gpt2 import Gpt2, Gpt2Config
from gptrec_rl.models.product import Product
from gptrec_rl.models.sequence import Bucket, Sequences

KeysValues = tuple[torch.Tensor, torch.Tensor]

KEYS_STEP = 32
"""Room for keys is a multiple of so many: processors take a softmax in steps of that size."""


@dataclass(frozen=True)
class Encoded:
    """What lists need to know of B histories.

    Attributes:
        states: final hidden states of the separators, [B, D] float32.
        buckets: the histories' buckets.
        layers: for each layer, for each bucket: keys and values, each [b, H, w, d].
    """

    states: torch.Tensor
    buckets: tuple[Bucket, ...]
    layers: Sequence[Sequence[KeysValues]]

    @classmethod
    def of(cls, parts: Sequence[Encoded]) -> Encoded:
        """Join parts, in their order."""
        return cls(
            torch.cat([part.states for part in parts]),
            tuple(bucket for part in parts for bucket in part.buckets),
            [[both for layer in same for both in layer] for same in zip(*(part.layers for part in parts), strict=True)],
        )


class Backbone:
    """A GPT-2 with its matrices in the precision of the products; gradients flow back to the GPT-2's own.

    To be made anew whenever the weights have changed.

    Args:
        gpt2: the weights; its training mode decides about dropout.
        dtype: of the matrix products, float32 or bfloat16.
    """

    def __init__(self, gpt2: Gpt2, dtype: torch.dtype) -> None:
        config = gpt2.config
        self.dtype = dtype
        self.layers = [Layer(block, config, dtype) for block in gpt2.get_submodule("h").children()]
        self._items, self._positions = gpt2.get_parameter("wte.weight"), gpt2.get_parameter("wpe.weight")
        # On a GPU it stays fp32, as nothing has been measured there.
        self._stream = dtype if self._items.device.type == "cpu" else torch.float32
        self._last_norm = _norm(gpt2.get_submodule("ln_f"), config)
        self._drop = _dropout(config.embd_pdrop, gpt2.training)

    def encode(self, sequences: Sequences) -> Encoded:
        """Run histories without lists."""
        buckets, separators = sequences.buckets, sequences.chosen_from[:, 0]
        hidden = self.embed(sequences.tokens, sequences.positions)
        layers: list[list[KeysValues]] = []
        for layer in self.layers[:-1]:
            *parts, spare = layer.project(layer.normed(hidden), 0, 3).split_with_sizes(sequences.sizes)
            split = [layer.split(part, bucket.n_rows) for part, bucket in zip(parts, buckets, strict=True)]
            attended = [layer.attend_fused(*three) for three in split]
            hidden = layer.finish(hidden, _join([*attended, spare[:, : hidden.shape[-1]]]))
            layers.append([(keys, values) for _, keys, values in split])
        layer, normed = self.layers[-1], self.layers[-1].normed(hidden)
        *parts, spare = layer.project(normed, 1, 3).split_with_sizes(sequences.sizes)
        split = [layer.split(part, bucket.n_rows) for part, bucket in zip(parts, buckets, strict=True)]
        layers.append([(keys, values) for keys, values in split])
        queries = layer.project(normed[separators], 0, 1)  # [B, D]
        attended = []
        for bucket, (keys, values) in zip(buckets, layers[-1], strict=True):
            (own,) = layer.split(queries[bucket.rows], bucket.n_rows)  # [b, H, 1, d]
            attended.append(layer.attend_fused(own, keys, values, self.additive(bucket.is_padding[:, None, None])))
        return Encoded(self.last_norm(layer.finish(hidden[separators], _join(attended))), buckets, layers)

    def states(self, sequences: Sequences) -> torch.Tensor:
        """Return the states of all tokens of histories without lists, padding included, [N, D] float32."""
        hidden = self.embed(sequences.tokens, sequences.positions)
        masks = [self.additive(is_hidden) for is_hidden in sequences.masked]
        n_rows = [bucket.n_rows for bucket in sequences.buckets]
        for layer in self.layers:
            attended = layer.attend([layer.project(layer.normed(hidden), 0, 3)], masks, n_rows)
            hidden = layer.finish(hidden, attended)
        return self.last_norm(hidden)

    def slate_states(self, sequences: Sequences) -> torch.Tensor:
        """Return the states from which each of K items of G lists is chosen, [B, G, K, D] float32."""
        n_lists, n_own = sequences.n_lists, sequences.n_own
        if not n_own:
            return self.encode(sequences).states[:, None, None].expand(-1, n_lists, -1, -1)
        hidden = self.embed(sequences.tokens, sequences.positions)
        masks = [self.additive(is_hidden) for is_hidden in sequences.masked]
        n_rows = [bucket.n_rows for bucket in sequences.buckets]
        for layer in self.layers[:-1]:
            attended = layer.attend([layer.project(layer.normed(hidden), 0, 3)], masks, n_rows)
            hidden = layer.finish(hidden, attended)
        layer, chosen_from = self.layers[-1], sequences.chosen_from.flatten()
        normed = layer.normed(hidden)
        queries = layer.project(normed.index_select(0, chosen_from), 0, 1)
        masks = [self.additive(is_hidden) for is_hidden in sequences.masked_where_chosen]
        attended = layer.attend([queries, layer.project(normed, 1, 3)], masks, n_rows)
        states = self.last_norm(layer.finish(hidden.index_select(0, chosen_from), attended))
        states = states.unflatten(0, (-1, 1 + n_own))
        first = states[:, None, :1].expand(-1, n_lists, -1, -1)
        return torch.cat([first, states[:, 1:].unflatten(1, (n_lists, -1))], dim=2)

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """[N] and [N] or [1] -> [N, D]."""
        tokens, positions = functional.embedding(tokens, self._items), functional.embedding(positions, self._positions)
        return self._drop(tokens + positions).to(self._stream)

    def last_norm(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [N, D] float32."""
        return torch.layer_norm(hidden.float(), *self._last_norm)

    def additive(self, is_hidden: torch.Tensor) -> torch.Tensor:
        """Return minus infinity where something is hidden and 0 elsewhere, in the precision of the products."""
        mask = torch.zeros(is_hidden.shape, dtype=self.dtype, device=is_hidden.device)
        return mask.masked_fill_(is_hidden, float("-inf"))


class Branches:
    """Tokens behind each of B histories that grow in branches, some at a time, without gradient.

    Their keys and values are written behind those of the histories, into tensors with room for all, and a mask opens
    what each may see.

    Args:
        backbone: the engine.
        encoded: the histories.
        n_together: how many tokens behind a history are appended at a time at most.
        room: and how many in all.
    """

    def __init__(self, backbone: Backbone, encoded: Encoded, n_together: int, room: int) -> None:
        self._backbone, self._buckets = backbone, encoded.buckets
        self._kept = []  # of each bucket: keys and values of all layers, [L, 2, b, H, w + room, d]
        self._masks = []  # and what is hidden, [b, 1, n_together, w + room]
        for place, bucket in enumerate(encoded.buckets):
            more = room + -(bucket.width + room) % KEYS_STEP
            self._kept.append(_with_room([layer[place] for layer in encoded.layers], more))
            is_hidden = functional.pad(bucket.is_padding, (0, more), value=True)
            mask = backbone.additive(is_hidden[:, None, None])
            self._masks.append(mask.repeat(bucket.n_rows // len(mask), 1, n_together, 1))

    def append(self, items: torch.Tensor, positions: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        """Append tokens behind each history.

        Args:
            items: [B, Q] int64.
            positions: their position ids, [B Q] or [1] int64.
            sees: what each of them sees of those before, in the order in which they were appended, and of each other,
                [Q, n + Q] bool; all see the history.

        Returns:
            The states from which the items behind them are chosen, [B, Q, D] float32.
        """
        n_new, n_own = sees.shape
        hidden, own = self._backbone.embed(items.flatten(), positions), self._backbone.additive(~sees)
        grown = []  # of each bucket: mask, and for all layers where new keys and values go, and which are seen
        for bucket, mask, kept in zip(self._buckets, self._masks, self._kept, strict=True):
            stop = bucket.width + n_own
            mask[:, :, :n_new, bucket.width : stop] = own
            end = stop + -stop % KEYS_STEP
            grown.append((mask[:, :, :n_new, :end], kept[..., stop - n_new : stop, :], kept[..., :end, :]))
        sizes = [bucket.n_rows * n_new for bucket in self._buckets]
        for place, layer in enumerate(self._backbone.layers):
            parts = layer.project(layer.normed(hidden), 0, 3).split_with_sizes(sizes)
            attended = []
            for bucket, part, (mask, room, seen) in zip(self._buckets, parts, grown, strict=True):
                new = layer.split(part, bucket.n_rows)  # [3, b, H, Q, d]
                room[place].copy_(new[1:])
                keys, values = seen[place].unbind()
                attended.append(layer.attend_fused(new[0], keys, values, mask))
            hidden = layer.finish(hidden, _join(attended))
        return self._backbone.last_norm(hidden).view(*items.shape, -1)


def _with_room(layers: Sequence[KeysValues], room: int) -> torch.Tensor:
    """[b, H, w, d] of each layer's keys and values -> [L, 2, b, H, w + room, d], with zeros behind."""
    n_rows, n_heads, width, size = layers[0][0].shape
    roomy = layers[0][0].new_empty(len(layers), 2, n_rows, n_heads, width + room, size)
    roomy[..., width:, :].zero_()
    for place, keys_values in enumerate(layers):
        for which, kept in enumerate(keys_values):
            roomy[place, which, :, :, :width] = kept
    return roomy


class Layer:
    """One block of a GPT-2, its four matrices in the precision of the products."""

    def __init__(self, block: nn.Module, config: Gpt2Config, dtype: torch.dtype) -> None:
        self.n_heads = config.n_head
        self._size = config.n_embd // config.n_head
        self._dtype = dtype
        self._norm_1, self._norm_2 = (_norm(block.get_submodule(name), config) for name in ("ln_1", "ln_2"))
        self._drop = _dropout(config.resid_pdrop, block.training)
        self._attention_dropout = config.attn_pdrop if block.training else 0.0
        self._in, out, up, down = (
            (block.get_parameter(f"{name}.bias").to(dtype), block.get_parameter(f"{name}.weight").to(dtype))
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        )
        self._projections: dict[tuple[int, int], Product] = {}
        self._out, self._up, self._down = Product(*out), Product(*up, config.activation_function), Product(*down)

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what the projections see, [N, D]."""
        return torch.layer_norm(hidden, *self._norm_1).to(self._dtype)

    def project(self, normed: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return queries (0), keys (1) and values (2) start..stop-1, [N, (stop - start) D]; GPT-2 keeps them as one."""
        if (start, stop) not in self._projections:
            bias, matrix = self._in
            if stop - start < 3:
                columns = slice(start * normed.shape[-1], stop * normed.shape[-1])
                bias, matrix = bias[columns], matrix[:, columns]
            self._projections[start, stop] = Product(bias, matrix)
        return self._projections[start, stop](normed)

    def split(self, projected: torch.Tensor, n_rows: int) -> torch.Tensor:
        """[b S, parts D] -> [parts, b, H, S, d], without a copy."""
        return by_head(projected, n_rows, self.n_heads, self._size)

    def attend_fused(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend from [b, H, Q, d] to [b, H, S, d] under an additive mask ([b or 1, 1, Q, S]) or causally; [b Q, D]."""
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, mask, dropout_p=self._attention_dropout, is_causal=mask is None
        )
        return mixed.transpose(1, 2).reshape(-1, self.n_heads * mixed.shape[-1])

    def attend(
        self, projected: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], n_rows: Sequence[int]
    ) -> torch.Tensor:
        """Attend where something is learned; see `attention.attend`."""
        return attend(projected, masks, n_rows, self.n_heads, self._attention_dropout)

    def finish(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Add attention and feed-forward network to the residual stream, [N, D]; without gradients in place."""
        hidden = _sum(hidden, self._drop(self._out(attended)))
        normed = torch.layer_norm(hidden, *self._norm_2).to(self._dtype)
        return _sum(hidden, self._drop(self._down(self._up(normed))))


def _sum(hidden: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Add in the precision of the residual stream, the fastest way there is."""
    return hidden + more.to(hidden.dtype) if torch.is_grad_enabled() else hidden.add_(more)


def _norm(module: nn.Module, config: Gpt2Config) -> tuple[list[int], torch.Tensor, torch.Tensor, float]:
    """Return what `torch.layer_norm` wants besides its input."""
    weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
    return list(weight.shape), weight, bias, config.layer_norm_epsilon


def _dropout(share: float, is_training: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    return partial(functional.dropout, p=share) if is_training and share > 0 else _same


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the first axis."""
    if len(parts) == 1:
        return parts[0]
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else torch.cat(filled)
