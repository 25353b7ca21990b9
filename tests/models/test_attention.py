"""Attention where something is learned, beside softmax(q k^T / sqrt(d)) v row by row and autograd's gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from gptrec_rl.models.attention import attend

N_HEADS, SIZE = 2, 4
WIDTH = N_HEADS * SIZE


def plain(
    queries: torch.Tensor, keys_values: torch.Tensor, masks: Sequence[torch.Tensor], n_rows: Sequence[int]
) -> torch.Tensor:
    """Attend row by row and head by head."""
    attended, n_queries, n_keys = [], 0, 0
    for mask, b in zip(masks, n_rows, strict=True):
        for row in range(b):
            of_row, of_all = queries[n_queries:][: mask.shape[1]], keys_values[n_keys:][: mask.shape[2]]
            n_queries, n_keys = n_queries + mask.shape[1], n_keys + mask.shape[2]
            heads = []
            for head in range(N_HEADS):
                columns = slice(head * SIZE, (head + 1) * SIZE)
                keys, values = of_all[:, :WIDTH][:, columns], of_all[:, WIDTH:][:, columns]
                hidden = mask[row if len(mask) > 1 else 0]
                weights = (of_row[:, columns] @ keys.T / SIZE**0.5 + hidden).softmax(dim=-1)
                heads.append(weights @ values)
            attended.append(torch.cat(heads, dim=1))
    return torch.cat(attended)


def draw_masks(sides: Sequence[tuple[int, int]], n_rows: Sequence[int]) -> list[torch.Tensor]:
    """Hide a third of the keys, of the last bucket the same ones for all rows; never the first key."""
    masks = []
    for (n_queries, n_keys), b in zip(sides, n_rows, strict=True):
        n = b if len(masks) + 1 < len(n_rows) else 1
        is_hidden = torch.rand(n, n_queries, n_keys) < 1 / 3
        is_hidden[:, :, 0] = False
        masks.append(torch.zeros(is_hidden.shape).masked_fill(is_hidden, float("-inf")))
    return masks


@pytest.mark.parametrize("n_spare", [0, 5])
def test_values_and_gradients_of_all_tokens_are_those_of_autograd(n_spare: int) -> None:
    torch.manual_seed(0)
    n_rows, widths = [3, 1, 2], [6, 9, 4]
    masks = draw_masks([(width, width) for width in widths], n_rows)
    n_tokens = sum(b * width for b, width in zip(n_rows, widths, strict=True))
    projected = torch.randn(n_tokens + n_spare, 3 * WIDTH, requires_grad=True)
    attended = attend([projected], masks, n_rows, N_HEADS)
    expected = plain(projected[:, :WIDTH], projected[:, WIDTH:], masks, n_rows)
    torch.testing.assert_close(attended[:n_tokens], expected)
    assert (attended[n_tokens:] == 0).all()
    weights = torch.randn(attended.shape)
    (gradient,) = torch.autograd.grad((attended * weights).sum(), projected)
    (expected_gradient,) = torch.autograd.grad((expected * weights[:n_tokens]).sum(), projected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_some_tokens_attend_to_all() -> None:
    torch.manual_seed(0)
    n_rows, sides = [2, 3], [(2, 7), (2, 5)]
    masks = draw_masks(sides, n_rows)
    queries = torch.randn(10, WIDTH, requires_grad=True)
    keys_values = torch.randn(2 * 7 + 3 * 5 + 1, 2 * WIDTH, requires_grad=True)
    attended, expected = (
        attend([queries, keys_values], masks, n_rows, N_HEADS),
        plain(queries, keys_values, masks, n_rows),
    )
    torch.testing.assert_close(attended, expected)
    weights = torch.randn(attended.shape)
    for ours, theirs in zip(
        torch.autograd.grad((attended * weights).sum(), [queries, keys_values]),
        torch.autograd.grad((expected * weights).sum(), [queries, keys_values]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_bf16_stays_near() -> None:
    torch.manual_seed(0)
    masks = draw_masks([(16, 16)], [4])
    exact = torch.randn(64, 3 * WIDTH, requires_grad=True)
    rounded = exact.detach().bfloat16().requires_grad_()
    weights = torch.randn(64, WIDTH)
    attended = attend([rounded], [mask.bfloat16() for mask in masks], [4], N_HEADS)
    assert attended.dtype == torch.bfloat16
    (attended.float() * weights).sum().backward()
    (attend([exact], masks, [4], N_HEADS) * weights).sum().backward()
    assert rounded.grad is not None
    assert exact.grad is not None
    cosine = torch.cosine_similarity(rounded.grad.float().flatten(), exact.grad.flatten(), dim=0)
    assert cosine.item() > 0.999


def test_what_dropout_leaves_out_has_no_gradient() -> None:
    torch.manual_seed(0)
    n, share = 40, 0.3
    queries, keys_values = torch.zeros(n, SIZE), torch.ones(n, 2 * SIZE, requires_grad=True)
    # One head; each token sees one other, so that all or nothing of what it attends to is left out.
    mask = torch.full((1, n, n), float("-inf")).masked_fill(torch.eye(n, dtype=torch.bool).roll(1, 0)[None], 0.0)
    attended = attend([queries, keys_values], [mask], [1], 1, dropout=share)[:, 0].detach()
    torch.manual_seed(0)
    attend([queries, keys_values], [mask], [1], 1, dropout=share).sum().backward()
    assert keys_values.grad is not None
    torch.testing.assert_close(keys_values.grad[:, SIZE].roll(1), attended)
    assert sorted(set(attended.tolist())) == pytest.approx([0, 1 / (1 - share)])
    assert 0.1 < (attended == 0).float().mean().item() < 0.5
