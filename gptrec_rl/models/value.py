"""The value model (sections 3.1 and 3.2): what reward is still to come, read after each step of the list."""

from __future__ import annotations

import copy

import torch
from torch import nn

from gptrec_rl.models.backbone import Backbone
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.sequence import Sequences


class ValueModel(nn.Module):
    """A GPT-2 backbone of its own, started from the student's, and a linear head started at random."""

    def __init__(self, student: GPTRec) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(student.transformer)
        self.head = nn.Linear(student.transformer.config.n_embd, 1).to(student.device)

    def forward(self, sequences: Sequences, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return V(s_t) for t = 0..K-1: after the separator and after each of the first K - 1 items.

        Args:
            sequences: B histories with G lists each.
            dtype: of the matrix products.

        Returns:
            [B, G, K] float32.
        """
        values: torch.Tensor = self.head(Backbone(self.backbone, dtype).slate_states(sequences)).squeeze(-1)
        return values
