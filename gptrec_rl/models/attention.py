"""Attention where something is learned: plain matrix products, and one backward pass for all buckets.

PyTorch's fused attention is the fastest forwards on processors, but backwards it takes several times as long as these
products. Their gradients are written out, because autograd copies them three times rather than once and takes a dozen
steps for each bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional


def attend(
    projected: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    n_rows: Sequence[int],
    n_heads: int,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Let tokens attend to those of their own row, bucket by bucket.

    Args:
        projected: queries, keys and values as columns, [N, 3 D] of all, or [M, D] and [N, 2 D]. The buckets' tokens
            stand one behind the other, perhaps with spare ones behind.
        masks: of each bucket, with Q tokens a row that attend to S: additive, [b, Q, S], or [1, Q, S] where all rows
            are alike.
        n_rows: of each bucket, b.
        n_heads: H.
        dropout: share of the attention that is left out.

    Returns:
        [N, D], or [M, D]; 0 for spare tokens.
    """
    attended: torch.Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        masks, n_rows, n_heads, dropout, *projected
    )
    return attended


def by_head(rows: torch.Tensor, n_rows: int, n_heads: int, size: int) -> torch.Tensor:
    """[b S, parts H d] -> [parts, b, H, S, d], without a copy."""
    return rows.view(n_rows, -1, rows.shape[1] // (n_heads * size), n_heads, size).permute(2, 0, 3, 1, 4)


class _Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v, by rows and heads.

    With A the softmax of the scores S: dv = A^T do, dA = do v^T, dS = A (dA - sum(A dA)) row by row,
    dq = dS k / sqrt(d) and dk = dS^T q / sqrt(d).
    """

    @staticmethod
    def forward(
        ctx: Any,
        masks: Sequence[torch.Tensor],
        n_rows: Sequence[int],
        n_heads: int,
        dropout: float,
        *projected: torch.Tensor,
    ) -> torch.Tensor:
        width = sum(part.shape[1] for part in projected) // 3
        size = width // n_heads
        sizes = [[b * mask.shape[side] for b, mask in zip(n_rows, masks, strict=True)] for side in (1, 2)]
        sizes = sizes[: len(projected)]  # tokens of each bucket, by tensor
        attended = _room(projected[0], (len(projected[0]), width), sizes[0])
        saved: list[torch.Tensor | None] = []
        for mask, b, mixed, *parts in zip(
            masks, n_rows, _cut(attended, sizes[0]), *map(_cut, projected, sizes), strict=True
        ):
            heads = [by_head(part, b, n_heads, size).flatten(1, 2) for part in parts]  # each [parts, b H, S, d]
            queries, keys, values = (each for part in heads for each in part)
            scores = queries.new_empty(len(queries), *mask.shape[-2:])
            scores.baddbmm_(queries, keys.transpose(1, 2), beta=0, alpha=size**-0.5)
            scores.unflatten(0, (b, n_heads)).add_(mask[:, None])
            weights = scores.softmax(dim=-1)
            factors = functional.dropout(torch.ones_like(weights), dropout) if dropout else None
            of_heads = torch.bmm(weights if factors is None else weights * factors, values)
            by_head(mixed, b, n_heads, size).copy_(of_heads.unflatten(0, (b, n_heads)))
            saved += [weights, factors, *heads]
        ctx.save_for_backward(*saved)
        ctx.sizes, ctx.n_rows, ctx.n_heads = sizes, n_rows, n_heads
        ctx.shapes = [part.shape for part in projected]
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_attended: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved, n_heads = iter(ctx.saved_tensors), ctx.n_heads
        size = of_attended.shape[1] // n_heads
        of_projected = [_room(of_attended, *both) for both in zip(ctx.shapes, ctx.sizes, strict=True)]
        for b, of_mixed, *of_parts in zip(
            ctx.n_rows, _cut(of_attended, ctx.sizes[0]), *map(_cut, of_projected, ctx.sizes), strict=True
        ):
            weights, factors, *heads = (next(saved) for _ in range(2 + len(of_parts)))
            queries, keys, values = (each for part in heads for each in part)
            of_heads = [torch.empty_like(part) for part in heads]
            of_queries, of_keys, of_values = (each for part in of_heads for each in part)
            (gradient,) = by_head(of_mixed, b, n_heads, size).flatten(1, 2)
            torch.bmm((weights if factors is None else weights * factors).transpose(1, 2), gradient, out=of_values)
            of_weights = torch.bmm(gradient, values.transpose(1, 2))
            if factors is not None:
                of_weights *= factors
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_queries.baddbmm_(of_scores, keys, beta=0, alpha=size**-0.5)
            of_keys.baddbmm_(of_scores.transpose(1, 2), queries, beta=0, alpha=size**-0.5)
            for of_part, of_head in zip(of_parts, of_heads, strict=True):
                by_head(of_part, b, n_heads, size).copy_(of_head.unflatten(1, (b, n_heads)))
        return None, None, None, None, *of_projected


def _room(like: torch.Tensor, shape: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Return room for tokens, with 0 where they are spare."""
    room = like.new_empty(shape)
    room[sum(sizes) :] = 0
    return room


def _cut(rows: torch.Tensor, sizes: Sequence[int]) -> Sequence[torch.Tensor]:
    """Return each bucket's tokens, without the spare ones."""
    return rows.split_with_sizes([*sizes, len(rows) - sum(sizes)])[:-1]
