"""Packing: a padded batch of histories without (most of) its padding, for all that treats tokens one by one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

STEP = 256
"""Packed batches have a multiple of so many tokens: processors prepare a matrix product anew for each new shape, which
takes longer than a small product itself."""


@dataclass(frozen=True)
class Packing:
    """Which places of a padded [B, S] batch are kept: all N' real ones, and padding up to a multiple of `STEP`.

    Attributes:
        shape: (B, S).
        kept: flat places in the padded batch, ascending, [N] int64.
        separators: where the last place of each row is among the kept, [B] int64.
    """

    shape: tuple[int, int]
    kept: torch.Tensor
    separators: torch.Tensor

    @classmethod
    def of(cls, is_real: torch.Tensor) -> Packing:
        """Make the packing of a batch, [B, S] bool, whose last column is real."""
        flat = is_real.flatten()
        n_kept = min(len(flat), -(-int(flat.sum()) // STEP) * STEP)
        kept = flat.to(torch.uint8).argsort(descending=True, stable=True)[:n_kept].sort().values
        last = torch.arange(1, is_real.shape[0] + 1, device=is_real.device) * is_real.shape[1] - 1
        return cls((is_real.shape[0], is_real.shape[1]), kept, torch.searchsorted(kept, last))

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """[B, S, ...] -> [N, ...]."""
        return padded.flatten(0, 1).index_select(0, self.kept)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """[N, C] -> [B, S, C], with zeros where nothing was kept."""
        padded = packed.new_zeros(self.shape[0] * self.shape[1], packed.shape[1])
        return padded.index_copy(0, self.kept, packed).unflatten(0, self.shape)
