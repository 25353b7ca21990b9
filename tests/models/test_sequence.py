"""The layout of Appendix B: tokens, position ids, buckets, and the places from which items are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.data import Histories
from gptrec_rl.models.sequence import Sequences, lay_out, parts_of
from gptrec_rl.models.work_sizes import WORK_SIZES

CPU = torch.device("cpu")
SEPARATOR = 100
EDGES = [0, 3, 15, 16, 31, 32, 40, 70]  # lengths at which widths change, and more than n = 40


def rows_of(laid_out: Sequences) -> list[tuple[list[int], list[int], list[bool]]]:
    """Return tokens, position ids and what is padding, of each row."""
    rows = []
    for bucket, tokens, positions in zip(
        laid_out.buckets, laid_out.tokens.split(laid_out.sizes), laid_out.positions.split(laid_out.sizes), strict=False
    ):
        assert tokens.shape == (bucket.n_rows * bucket.width,)
        is_padding = bucket.is_padding.expand(bucket.n_rows, -1).tolist()
        in_rows = (tensor.view(bucket.n_rows, bucket.width).tolist() for tensor in (tokens, positions))
        rows.extend(zip(*in_rows, is_padding, strict=True))
    return rows


def test_histories_are_cut_to_their_last_n_and_padded_behind_the_separator() -> None:
    laid_out = lay_out(Histories.of([[], [4], [1, 2, 3, 4, 5]]), 3, SEPARATOR, CPU)
    assert [tokens for tokens, _, _ in rows_of(laid_out)] == [
        [100, 0, 0, 0, 0, 0, 0, 0],
        [4, 100, 0, 0, 0, 0, 0, 0],
        [3, 4, 5, 100, 0, 0, 0, 0],
    ]
    assert [is_padding for _, _, is_padding in rows_of(laid_out)] == [
        [False] * 1 + [True] * 7,
        [False] * 2 + [True] * 6,
        [False] * 4 + [True] * 4,
    ]


def test_positions_count_back_from_the_separator_and_on_from_n() -> None:
    slates = np.array([[[7, 8, 9], [9, 7, 8]], [[1, 2, 3], [3, 2, 1]]])
    laid_out = lay_out(Histories.of([[1, 2], [5]]), 200, SEPARATOR, CPU, slates)
    # The i-th item of a list, i = 1.., has n + i; the last item of a list is left out.
    assert [row[:2] for row in rows_of(laid_out)] == [
        ([1, 2, 100, 0, 7, 8, 9, 7], [2, 1, 0, 0, 201, 202, 201, 202]),
        ([5, 100, 0, 0, 1, 2, 3, 2], [1, 0, 0, 0, 201, 202, 201, 202]),
    ]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], np.ndarray | None]:
    """Histories of any length in any order, and perhaps lists."""
    lengths = draw(st.lists(st.sampled_from(EDGES), max_size=14))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    histories = [rng.integers(1, SEPARATOR, length).tolist() for length in lengths]
    n_lists, k = draw(st.integers(0, 3)), draw(st.integers(1, 4))
    return histories, rng.integers(1, SEPARATOR, (len(lengths), n_lists, k)) if n_lists else None


@given(batch=batches())
def test_every_row_is_its_history_separator_padding_and_lists(batch: tuple[list[list[int]], np.ndarray | None]) -> None:
    histories, slates = batch
    laid_out = lay_out(Histories.of(histories), 40, SEPARATOR, CPU, slates)
    assert [bucket.rows.start for bucket in laid_out.buckets] == [
        0, *(bucket.rows.stop for bucket in laid_out.buckets)
    ][:-1]  # fmt: skip
    rows = rows_of(laid_out)
    assert len(rows) == len(histories)
    for number, (history, (tokens, positions, is_padding)) in enumerate(zip(histories, rows, strict=True)):
        own = [] if slates is None else slates[number, :, :-1].ravel().tolist()
        start = [*history[-40:], SEPARATOR]
        n_padding = len(tokens) - len(start) - len(own)
        assert tokens == start + [0] * n_padding + own
        assert is_padding == [False] * len(start) + [True] * n_padding + [False] * len(own)
        own_positions = [] if slates is None else [*range(41, 40 + slates.shape[2])] * slates.shape[1]
        assert positions == [*range(len(start) - 1, -1, -1)] + [0] * n_padding + own_positions
        chosen_from = laid_out.tokens[laid_out.chosen_from[number]].tolist()
        assert chosen_from == [SEPARATOR, *own]
    assert sum(laid_out.sizes) == len(laid_out.tokens) == len(laid_out.positions)
    assert (laid_out.tokens.split(laid_out.sizes)[-1] == 0).all()


@given(batch=batches())
def test_few_shapes_recur_and_padding_is_bounded(batch: tuple[list[list[int]], np.ndarray | None]) -> None:
    histories, slates = batch
    laid_out = lay_out(Histories.of(histories), 40, SEPARATOR, CPU, slates)
    assert len(laid_out.tokens).bit_length() - (len(laid_out.tokens) & -len(laid_out.tokens)).bit_length() < 4
    assert laid_out.sizes[-1] <= len(laid_out.tokens) / 8
    sizes = np.array([min(len(history), 40) + 1 + laid_out.n_own for history in histories])
    widths = np.repeat([bucket.width for bucket in laid_out.buckets], [bucket.n_rows for bucket in laid_out.buckets])
    assert (sizes <= widths).all()
    assert (widths % 8 == 0).all()
    for width in set(widths.tolist()):
        padding = np.sort(width - sizes[widths == width])  # 15 tokens and fewer round a width up
        assert padding[0] < 16
        assert np.maximum(padding - 15, 0).sum() <= 96


def test_a_long_history_stands_alone_and_the_others_are_padded_little() -> None:
    lengths = [200, 18, 13, 10, 8, 8, 7, 6, 6, 4, 4, 3, 3, 2, 2, 1]  # rounded up with the separator: 208, 24, 16, 8
    laid_out = lay_out(Histories.of([[1] * length for length in lengths]), 200, SEPARATOR, CPU)
    assert [(b.rows.start, b.rows.stop, b.width) for b in laid_out.buckets] == [(0, 1, 208), (1, 6, 24), (6, 16, 8)]
    assert laid_out.sizes == [208, 120, 80, 8]  # 408 tokens are filled up to 416


def test_rows_of_similar_width_share_a_bucket_and_out_of_order_they_do_not() -> None:
    histories = Histories.of([[1] * length for length in (60, 40, 20, 15)])  # rounded up: 64, 48, 24, 16
    laid_out = lay_out(histories, 60, SEPARATOR, CPU)
    assert [(b.rows.start, b.rows.stop, b.width) for b in laid_out.buckets] == [(0, 3, 64), (3, 4, 16)]
    laid_out = lay_out(histories.take(np.array([0, 3, 1, 2])), 60, SEPARATOR, CPU)
    assert [(b.rows.start, b.rows.stop, b.width) for b in laid_out.buckets] == [(0, 1, 64), (1, 2, 16), (2, 4, 64)]


def test_rows_that_are_alike_share_what_is_padding() -> None:
    alike = lay_out(Histories.of([[1, 2], [3, 4], [5, 6, 7]]), 2, SEPARATOR, CPU)
    assert [bucket.is_padding.shape for bucket in alike.buckets] == [(1, 8)]
    other = lay_out(Histories.of([[1, 2], [3]]), 2, SEPARATOR, CPU)
    assert [bucket.is_padding.shape for bucket in other.buckets] == [(2, 8)]


def test_no_histories_have_no_tokens() -> None:
    laid_out = lay_out(Histories.of([]), 5, SEPARATOR, CPU, np.zeros((0, 2, 3), dtype=np.int64))
    assert (laid_out.tokens.shape, laid_out.chosen_from.shape, laid_out.buckets) == ((0,), (0, 5), ())


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    rows_step=st.sampled_from([1, 4, 8]),
    tokens=st.sampled_from([1, 100, 600]),
    n_scores=st.sampled_from([0, 1, 7, 50, 200]),  # a row; 100 a part are allowed
)
def test_parts_hold_every_row_once_the_longest_first(
    lengths: list[int], rows_step: int, tokens: int, n_scores: int
) -> None:
    sizes = replace(WORK_SIZES["cpu"], tokens_per_part=tokens, scores_per_part=100)
    parts = list(parts_of(np.array(lengths, dtype=np.int64), sizes, n_scores, rows_step))
    order = [row for part in parts for row in part.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    for part in parts:
        assert len(part) <= rows_step or len(part) * lengths[part[0]] <= tokens
        assert len(part) == 1 or len(part) * n_scores <= 100
    for part in parts[:-1]:  # there is no room for more
        is_full_of_tokens = len(part) % rows_step == 0 and (len(part) + rows_step) * lengths[part[0]] > tokens
        assert is_full_of_tokens or (len(part) + 1) * n_scores > 100


def test_where_launches_cost_more_than_padding_rows_of_all_lengths_stand_in_one_bucket(
    cut_into: Callable[..., None],
) -> None:
    histories = Histories.of([[1] * length for length in (200, 120, 60, 5)])
    assert len(lay_out(histories, 200, SEPARATOR, CPU).buckets) > 1
    cut_into(**asdict(WORK_SIZES["cuda"]))
    (bucket,) = lay_out(histories, 200, SEPARATOR, CPU).buckets
    assert (bucket.n_rows, bucket.width) == (4, 208)
