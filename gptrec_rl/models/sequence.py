"""The input sequence of Appendix B, history, separator and recommended items, and how batches of it are laid out.

Histories of one batch differ in length from 0 to n. They are laid out one behind the other in a single row of tokens,
in buckets of about equal length: all that treats tokens one by one sees little padding, and attention sees dense
blocks. Batches that are sorted by length have the least padding; the results don't depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from gptrec_rl.data import Histories
from gptrec_rl.models.work_sizes import WorkSizes, work_sizes_of

PADDING = 0
WIDTH_STEP = 16
"""Widths of rows come in such steps, and numbers of tokens in eighths of a power of two, so that few shapes recur:
processors prepare a matrix product anew for each new shape, which takes longer than a small product itself."""


@dataclass(frozen=True)
class Bucket:
    """Consecutive rows of a batch, padded to the same width: `history, separator, padding, lists`.

    Attributes:
        rows: which rows of the batch, b of them.
        width: w, tokens a row.
        is_padding: [b, w] bool; [1, w] where all rows are alike.
    """

    rows: slice
    width: int
    is_padding: torch.Tensor

    @property
    def n_rows(self) -> int:
        """Return b."""
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class Sequences:
    """B histories, cut to their last n items, each with a marker, and perhaps lists behind it.

    The marker is GPTRec's separator, which ends the history, or the start token in front of it that the other models
    know a new user by.

    Lists lack their last items, from which nothing is chosen. They are branches: a token of a list sees the history and
    the earlier items of its own list alone. Padding comes after the separator, so a history's causal attention never
    sees it.

    Attributes:
        tokens: [N] int64: the buckets' rows one behind the other, [b_1 w_1 + b_2 w_2 + ...], and spare padding.
        positions: position ids, [N] int64: the last token of history and marker has 0, the one before it 1, ...; the
            i-th item of a list has n + i, whatever the length of the history.
        chosen_from: the places in `tokens` from which items are chosen: the last of each row's history and marker, then
            its lists, the first list first, [B, 1 + G (K - 1)] int64.
        buckets: all rows in order.
        n_lists: G; 0 for histories alone.
        n_own: tokens of lists in a row, G (K - 1).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    chosen_from: torch.Tensor
    buckets: tuple[Bucket, ...]
    n_lists: int
    n_own: int

    @property
    def sizes(self) -> list[int]:
        """Return how many tokens each bucket has, and last the spare ones."""
        used = [bucket.n_rows * bucket.width for bucket in self.buckets]
        return [*used, len(self.tokens) - sum(used)]

    @cached_property
    def masked(self) -> list[torch.Tensor]:
        """Return what each bucket's tokens don't see of their row, [b, w, w] bool; [1, w, w] if all rows are alike."""
        return [self._masked(bucket) for bucket in self.buckets]

    @cached_property
    def masked_where_chosen(self) -> list[torch.Tensor]:
        """Return the same of the tokens that items of lists are chosen from, [b or 1, 1 + G (K - 1), w]."""
        masked = []
        for bucket, is_hidden in zip(self.buckets, self.masked, strict=True):
            from_marker = bucket.is_padding.clone()[:, None]
            from_marker[:, :, -self.n_own :] = True
            masked.append(torch.cat([from_marker, is_hidden[:, -self.n_own :]], dim=1))
        return masked

    def _masked(self, bucket: Bucket) -> torch.Tensor:
        device, n_own = self.tokens.device, self.n_own
        is_hidden = torch.ones(bucket.width, bucket.width, dtype=torch.bool, device=device).triu(1)  # what comes later
        if not n_own:
            return is_hidden[None]
        lists = torch.arange(n_own, device=device) // (n_own // self.n_lists)
        is_hidden[-n_own:, -n_own:] |= lists[:, None] != lists
        is_other = ~torch.eye(bucket.width, dtype=torch.bool, device=device)  # no row of a softmax is empty
        return is_hidden | (bucket.is_padding[:, None] & is_other)


def lay_out(
    histories: Histories,
    history_length: int,
    marker: int,
    device: torch.device,
    slates: np.ndarray | None = None,
    *,
    starts_with_marker: bool = False,
) -> Sequences:
    """Lay out the last n = `history_length` items of B histories, markers, and lists.

    Args:
        histories: B whole histories.
        history_length: n.
        marker: its token.
        device: where to put the result.
        slates: G lists a history, [B, G, K] int; None for histories alone.
        starts_with_marker: whether the marker stands in front of the history, rather than behind it.
    """
    n_lists, n_later = (0, 0) if slates is None else (slates.shape[1], slates.shape[2] - 1)
    n_own = n_lists * n_later
    lengths = np.minimum(histories.lengths, history_length)
    widths = _widths(lengths + 1 + n_own, work_sizes_of(device).padding_per_bucket)  # [B]
    starts = np.cumsum(widths) - widths
    n_used = int(widths.sum())
    step = 1 << max(n_used.bit_length() - 4, 0)
    tokens = np.full(-(-n_used // step) * step, PADDING, dtype=np.int64)
    positions = np.zeros(len(tokens), dtype=np.int64)
    owners = np.repeat(np.arange(len(histories)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(owners))  # T, T - 1, ..., 1 for each history
    ends = starts + lengths
    places = ends[owners] - left + starts_with_marker
    tokens[places] = histories.values[histories.offsets[1:][owners] - left]
    positions[places] = left - starts_with_marker
    markers = starts if starts_with_marker else ends
    tokens[markers], positions[markers] = marker, ends - markers
    own = (starts + widths - n_own)[:, None] + np.arange(n_own)  # [B, G (K - 1)]
    if slates is not None:
        tokens[own] = slates[:, :, :-1].reshape(own.shape)
        positions[own] = np.tile(history_length + 1 + np.arange(n_later), n_lists)
    edges = [0, *(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(widths)] if len(widths) else [0]
    buckets = []
    for first, last in pairwise(edges):
        columns, sizes = np.arange(widths[first]), lengths[first:last]
        if (sizes == sizes[0]).all():
            sizes = sizes[:1]
        is_padding = (columns > sizes[:, None]) & (columns < widths[first] - n_own)
        buckets.append(Bucket(slice(first, last), int(widths[first]), torch.from_numpy(is_padding).to(device)))
    chosen_from = np.concatenate([ends[:, None], own], axis=1)
    return Sequences(
        tokens=torch.from_numpy(tokens).to(device),
        positions=torch.from_numpy(positions).to(device),
        chosen_from=torch.from_numpy(chosen_from).to(device),
        buckets=tuple(buckets),
        n_lists=n_lists,
        n_own=n_own,
    )


def _widths(sizes: np.ndarray, most_padding: int) -> np.ndarray:
    """Return the width that each row is padded to, [B]: that of the longest of its bucket, rounded up."""
    steps = np.where(sizes <= 2 * WIDTH_STEP, WIDTH_STEP // 2, WIDTH_STEP)
    rounded = -(-sizes // steps) * steps
    n_rows = np.bincount(rounded)  # of each width
    padded, padding, longest = np.arange(len(n_rows)), 0, len(n_rows) - 1  # the longest row of the bucket
    for width in np.flatnonzero(n_rows)[::-1].tolist():
        padding += int(n_rows[width]) * (longest - width)
        if padding > most_padding:
            padding, longest = 0, width
        padded[width] = longest
    widths: np.ndarray = padded[rounded]
    return widths


def parts_of(lengths: np.ndarray, sizes: WorkSizes, n_scores: int = 0, rows_step: int = 4) -> Iterator[np.ndarray]:
    """Cut a batch into parts of rows of about equal length, the longest first.

    Args:
        lengths: tokens of each row, [B] int.
        sizes: how many tokens and scores a part may have.
        n_scores: how many scores a row needs at a time.
        rows_step: a part has a multiple of so many rows, unless it is the last or scores are the limit.

    Yields:
        places of the rows of a part in the batch, int64; of no more tokens and scores than the sizes allow,
        unless `rows_step` rows, or one row, have more.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, sizes.tokens_per_part // (int(lengths[order[start]]) * rows_step)) * rows_step
        stop = min(stop, start + max(1, sizes.scores_per_part // max(1, n_scores)))
        yield order[start:stop]
        start = stop
