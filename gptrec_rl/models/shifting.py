"""GPTRec-Shifting (section 4.5): the policy's GPT-2, trained as Top-K models are, on sequences shifted by one."""

from __future__ import annotations

from gptrec_rl.config import TransformerConfig
from gptrec_rl.models.next_item import NextItemTransformer


class GPTRecShifting(NextItemTransformer):
    """It tells what of GPTRec's results is due to the architecture, and what to the two stages."""

    KINDS = ("shifting",)

    @classmethod
    def create(cls, n_items: int, sizes: TransformerConfig, dropout: float = 0.0) -> GPTRecShifting:
        """Make an untrained model from torch's current random state; attention itself has no dropout."""
        return cls.initialised(
            n_items,
            sizes,
            sizes.history_length + 1,
            activation_function="gelu",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            recommender="shifting",
        )
