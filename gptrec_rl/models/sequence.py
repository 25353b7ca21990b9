"""The input sequence of Appendix B: padding, history, separator, recommended items, each with its position id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gptrec_rl.data import Histories

PADDING = 0


@dataclass(frozen=True)
class HistoryTokens:
    """B histories, cut to their last n items, as tokens; the separator is the last one of each row.

    Attributes:
        tokens: [B, S] int64, padded on the left; S = 1 + the longest (cut) history, rounded up by `padded_width`.
        is_real: [B, S] bool, True where the token is not padding.
    """

    tokens: torch.Tensor
    is_real: torch.Tensor

    @property
    def positions(self) -> torch.Tensor:
        """Position ids, [S] int64: the separator has 0, the last item 1, the one before it 2, ..."""
        return torch.arange(self.tokens.shape[1] - 1, -1, -1, device=self.tokens.device)


def history_tokens(histories: Histories, history_length: int, separator: int, device: torch.device) -> HistoryTokens:
    """Lay out the last n = `history_length` items of each history and the separator."""
    lengths = np.minimum(histories.lengths, history_length)
    width = min(padded_width(int(lengths.max(initial=0)) + 1) - 1, history_length)
    tokens = np.full((len(histories), width + 1), PADDING, dtype=np.int64)
    columns = np.arange(width) - (width - lengths[:, None])  # [B, width]: place within the cut history, < 0 in padding
    kept = columns >= 0
    sources = (histories.offsets[1:] - lengths)[:, None] + columns
    tokens[:, :width][kept] = histories.values[sources[kept]]
    tokens[:, width] = separator
    real = np.concatenate([kept, np.ones((len(histories), 1), dtype=bool)], axis=1)
    return HistoryTokens(torch.from_numpy(tokens).to(device), torch.from_numpy(real).to(device))


def padded_width(width: int) -> int:
    """Round the width of a batch up, beyond 32 to a multiple of 16: a new shape is slow (see `packing.STEP`)."""
    return width if width <= 32 else -(-width // 16) * 16


def slate_positions(start: int, stop: int, history_length: int, device: torch.device) -> torch.Tensor:
    """Position ids of recommended items start..stop-1, counted from 0: the i-th of the list has n + i (Appendix B)."""
    return torch.arange(history_length + 1 + start, history_length + 1 + stop, device=device)
