"""How finely work is cut: into what a processor's caches hold, and coarser on a GPU, which waits for every launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class WorkSizes:
    """How finely work is cut; results are the same up to rounding, samples other ones of the same distribution.

    Attributes:
        padding_per_bucket: rows join the bucket of longer ones while that pads them by so many tokens in all; another
            bucket costs as much.
        tokens_per_part: batches are cut into parts of so many tokens at most.
        scores_per_part: and of so many scores, 4 bytes each, one for each item of the catalogue, list and row.
        lists_together: histories are run in parts, and about so many lists grow together behind them: small products
            are slow.
        logits_at_once: when learning, about so many logits are computed at a time; in any case those of
            `masking.ROWS_AT_ONCE` or `cross_entropy.PLACES_AT_ONCE` choices, which on processors is best.
    """

    padding_per_bucket: int
    tokens_per_part: int
    scores_per_part: int
    lists_together: int
    logits_at_once: int


WORK_SIZES = {
    "cpu": WorkSizes(
        padding_per_bucket=96, tokens_per_part=2**12, scores_per_part=2**24, lists_together=128, logits_at_once=0
    ),
    "cuda": WorkSizes(
        padding_per_bucket=2**12,
        tokens_per_part=2**14,
        scores_per_part=2**27,
        lists_together=2**10,
        logits_at_once=2**26,
    ),
}
"""By the type of the device."""


def work_sizes_of(device: torch.device) -> WorkSizes:
    """Return how finely to cut work for a device."""
    return WORK_SIZES.get(device.type, WORK_SIZES["cpu"])
