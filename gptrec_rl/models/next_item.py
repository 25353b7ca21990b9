"""Models that score the next item after a history (section 2.1), and that learn from sequences shifted by one."""

from __future__ import annotations

from gptrec_rl.config import TransformerConfig
from gptrec_rl.data import Histories
from gptrec_rl.models.item_transformer import ItemTransformer
from gptrec_rl.models.sequence import Sequences, lay_out


class NextItemTransformer(ItemTransformer):
    """A causal Transformer that predicts the next item at every place: `start token, history`.

    Position ids count from the end, as in models that pad on the left: the last item has 0. The start token stands in
    front of the (cut) history and has the next id, so a new user is the start token alone.
    """

    def lay_out(self, histories: Histories) -> Sequences:
        """Lay out the last n items of B histories behind start tokens, on the model's device."""
        start = self.n_items + 1
        return lay_out(histories, self.history_length, start, self.device, starts_with_marker=True)


class SASRec(NextItemTransformer):
    """SASRec (Kang and McAuley, 2018): the causal Transformer whose next-item scores are learned against negatives.

    The blocks normalise their input, the feed-forward network is as wide as the model and has a ReLU, items have the
    same embeddings as input and output: a GPT-2 of that shape. Which loss it learns by is a setting of its training;
    with the softmax over all items, or gSASRec's generalised binary cross-entropy, it is one of the strongest models
    there are.
    """

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


class GPTRecShifting(NextItemTransformer):
    """GPTRec-Shifting (section 4.5): the policy's GPT-2, trained as Top-K models are, on sequences shifted by one.

    It tells what of GPTRec's results is due to the architecture, and what to the two stages.
    """

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
