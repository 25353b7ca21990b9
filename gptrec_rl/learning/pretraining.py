"""Stage 1 (section 3.2): the student learns to write the lists of a teacher, by cross-entropy (equation 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gptrec_rl.config import PretrainConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.decoding.masking import chosen_log_probs
from gptrec_rl.learning.examples import draw_cuts
from gptrec_rl.learning.training import AdamTraining
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.sequence import parts_of
from gptrec_rl.models.work_sizes import work_sizes_of
from gptrec_rl.recommender import Recommender, candidates


@dataclass(frozen=True)
class Example:
    """A batch of histories and the teacher's lists for them.

    Attributes:
        histories: B histories.
        slates: [B, 1, K] int64.
        may: items that may be recommended, [B, I] bool, on the model's device.
    """

    histories: Histories
    slates: np.ndarray
    may: torch.Tensor


def slate_loss(policy: GPTRec, example: Example, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return equation 6 as a mean over lists and places, over the masked distribution, in nats per item.

    Args:
        policy: the student.
        example: histories and the teacher's lists.
        dtype: of the matrix products.
    """
    sequences = policy.lay_out(example.histories, example.slates)
    states = policy.backbone(dtype).slate_states(sequences)
    slates = torch.from_numpy(example.slates).to(policy.device)
    log_probs, _ = chosen_log_probs(states, policy.item_weights, example.may, slates, dtype=dtype)
    return -log_probs.mean()


class Pretraining(AdamTraining[GPTRec]):
    """Stage 1.

    Args:
        student: an untrained policy, trained in place.
        teacher: any recommender.
        split: the data.
        config: budgets and settings.
    """

    validates = "cross-entropy"

    def __init__(self, student: GPTRec, teacher: Recommender, split: Split, config: PretrainConfig) -> None:
        super().__init__(student, split, config)
        self._teacher = teacher
        self._split = split
        self._validation = list(self._parts(split.validation.histories))

    def _losses(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        histories = draw_cuts(self._split, self.config.batch_size, rng).histories
        for example in self._parts(histories):
            yield slate_loss(self.network, example, self._dtype) * (len(example.histories) / len(histories))

    def _validation_loss(self) -> float:
        losses = [slate_loss(self.network, example, self._dtype).item() for example in self._validation]
        return float(np.average(losses, weights=[len(example.histories) for example in self._validation]))

    def _parts(self, histories: Histories) -> Iterator[Example]:
        """Cut a batch into parts, whose gradients add up to the batch's."""
        lengths = np.minimum(histories.lengths, self.network.history_length) + self.network.slate_length
        for rows in parts_of(lengths, work_sizes_of(self.network.device), rows_step=8):
            yield self._example(histories.take(rows))

    def _example(self, histories: Histories) -> Example:
        k = self.network.slate_length
        slates = self._teacher.recommend(histories, k).items
        may = candidates(histories, self.network.n_items, k, None)
        return Example(histories, slates[:, None], torch.from_numpy(may).to(self.network.device))
