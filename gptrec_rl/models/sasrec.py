"""SASRec (Kang and McAuley, 2018): the causal Transformer whose next-item scores are learned against negatives.

The blocks normalise their input, the feed-forward network is as wide as the model and has a ReLU, items have the same
embeddings as input and output: a GPT-2 of that shape. Which loss it learns by is a setting of its training; with the
softmax over all items, or gSASRec's generalised binary cross-entropy, it is one of the strongest models there are.
"""

from __future__ import annotations

from gptrec_rl.config import TransformerConfig
from gptrec_rl.models.next_item import NextItemTransformer


class SASRec(NextItemTransformer):
    """See the module."""

    KINDS = ("sasrec",)

    @classmethod
    def create(cls, n_items: int, sizes: TransformerConfig, dropout: float = 0.0) -> SASRec:
        """Make an untrained model from torch's current random state; attention itself has no dropout."""
        return cls.initialised(
            n_items,
            sizes,
            sizes.history_length + 1,
            n_inner=sizes.width,
            activation_function="relu",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            recommender="sasrec",
        )
