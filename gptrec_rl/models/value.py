"""The value model (sections 3.1 and 3.2): what reward is still to come, read after each step of the list."""

from __future__ import annotations

import copy

import torch
from torch import nn

from gptrec_rl.models import backbone
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.sequence import HistoryTokens


class ValueModel(nn.Module):
    """A GPT-2 backbone of its own, started from the student's, and a linear head started at random."""

    def __init__(self, student: GPTRec) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(student.network.transformer)
        self.head = nn.Linear(student.network.config.n_embd, 1).to(student.device)

    def forward(self, history: HistoryTokens, slates: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return V(s_t) for t = 0..K-1: after the separator and after each of the first K - 1 items.

        Args:
            history: B histories.
            slates: [B, G, K] int64.
            positions: position ids of the first K - 1 items, [K - 1] int64.

        Returns:
            [B, G, K] float32.
        """
        states = backbone.slate_states(self.backbone, history, slates, positions)
        with torch.autocast(states.device.type, enabled=False):
            values: torch.Tensor = self.head(states.float()).squeeze(-1)
        return values
