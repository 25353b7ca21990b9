"""GPTRec: the policy, a GPT-2 that writes a list item by item (sections 2.2 and 3.1, Appendix B)."""

from __future__ import annotations

import numpy as np
import torch

from gptrec_rl.config import ModelConfig
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models.gpt2 import Gpt2
from gptrec_rl.models.item_transformer import ItemTransformer
from gptrec_rl.models.sequence import Sequences, lay_out


class GPTRec(ItemTransformer):
    """A GPT-2 with vocabulary padding, items 1..I, separator, n + K + 1 position ids, and tied embeddings.

    Attributes:
        transformer: the weights.
        n_items: I.
        history_length: n, the longest history that is read.
        slate_length: K, the longest list that can be written.
    """

    KINDS = ("gptrec",)

    def __init__(self, transformer: Gpt2) -> None:
        super().__init__(transformer)
        self.slate_length = transformer.config.n_positions - self.history_length - 1
        if self.slate_length < 1:
            raise ValueError(
                f"{transformer.config.n_positions} positions leave no list behind {self.history_length} items"
            )

    @classmethod
    def create(cls, n_items: int, config: ModelConfig, dropout: float = 0.0) -> GPTRec:
        """Make an untrained policy from torch's current random state, as Hugging Face's GPT-2 starts."""
        return cls.initialised(
            n_items,
            config,
            config.history_length + config.slate_length + 1,
            activation_function="gelu",  # GPT-2's own approximates it and takes three times as long
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
        )

    @property
    def separator(self) -> int:
        """The token that ends a history."""
        return self.n_items + 1

    def lay_out(self, histories: Histories, slates: np.ndarray | None = None) -> Sequences:
        """Lay out the last n items of B histories, and lists [B, G, K] behind them, on the model's device.

        Raises:
            InputError: the lists are longer than K, and so than there are positions for.
        """
        if slates is not None and slates.shape[-1] > self.slate_length:
            raise InputError(
                f"lists of {slates.shape[-1]} items are longer than the {self.slate_length} that this policy has "
                "positions for; shorten them, or train a policy with a larger model.slate_length"
            )
        return lay_out(histories, self.history_length, self.separator, self.device, slates)

    def positions(self, start: int, stop: int) -> torch.Tensor:
        """Return position ids of a list's items start..stop-1, counted from 0, [stop - start] int64 (Appendix B)."""
        first = self.history_length + 1
        return torch.arange(first + start, first + stop, device=self.device)

    def slate_logits(
        self, histories: Histories, slates: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return the logits from which each item of given lists is chosen.

        Args:
            histories: B whole histories.
            slates: [B, G, K] int64.
            dtype: of the matrix products.

        Returns:
            [B, G, K, I] float32, unmasked; column i - 1 is item i.
        """
        sequences = self.lay_out(histories, slates.cpu().numpy())
        return self.item_logits(self.backbone(dtype).slate_states(sequences))
