"""BERT4Rec's training: fill in masked items of windows of histories, from what stands on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from gptrec_rl.config import Bert4RecConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.learning.cross_entropy import softmax_cross_entropy
from gptrec_rl.learning.examples import draw_windows
from gptrec_rl.learning.next_item import VALIDATES, validation_loss
from gptrec_rl.learning.training import AdamTraining
from gptrec_rl.models.bert4rec import Bert4Rec, MaskScorer
from gptrec_rl.models.sequence import parts_of
from gptrec_rl.models.work_sizes import work_sizes_of


class MaskedItemTraining(AdamTraining[Bert4Rec]):
    """Training of BERT4Rec by cross-entropy over all items at the masked places.

    Args:
        network: untrained, trained in place.
        split: the data.
        config: budgets and settings.
    """

    validates = VALIDATES

    def __init__(self, network: Bert4Rec, split: Split, config: Bert4RecConfig) -> None:
        super().__init__(network, split, config)
        self._split = split
        self._mask_share, self._last_share = config.mask_share, config.last_share

    def _validation_loss(self) -> float:
        return validation_loss(MaskScorer(self.network, self.config.precision), self._split)

    def _losses(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        network = self.network
        _, windows = draw_windows(self._split, self.config.batch_size, network.history_length, rng)
        is_masked = draw_masks(windows, self._mask_share, self._last_share, rng)
        masked = Histories(np.where(is_masked, network.mask_token, windows.values), windows.offsets)
        for rows in parts_of(windows.lengths, work_sizes_of(network.device)):
            sequences = masked.take(rows)
            items = windows.take(rows).values[sequences.values == network.mask_token]  # [N]
            targets = torch.from_numpy(items.astype(np.int64)).to(network.device)
            states = network.masked_states(sequences, self._dtype)
            loss = softmax_cross_entropy(states, network.item_weights, targets, self._dtype)
            yield loss * (len(items) / is_masked.sum())


def draw_masks(windows: Histories, mask_share: float, last_share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw which items of each window to mask, one or more: [sum of lengths] bool.

    Args:
        windows: histories of one item or more.
        mask_share: the chance of an item to be masked.
        last_share: of windows in which the last item alone is masked, as when recommending.
        rng: the source of randomness.
    """
    is_masked = rng.random(len(windows.values)) < mask_share
    last_only = rng.random(len(windows)) < last_share
    is_masked[np.repeat(last_only, windows.lengths)] = False
    is_masked[windows.offsets[1:][last_only] - 1] = True
    has_none = ~np.logical_or.reduceat(is_masked, windows.offsets[:-1])
    is_masked[(windows.offsets[:-1] + rng.integers(0, windows.lengths))[has_none]] = True
    return is_masked
