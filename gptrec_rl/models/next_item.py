"""Models that score the next item after a history (section 2.1), and that learn from sequences shifted by one."""

from __future__ import annotations

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.models.item_transformer import ItemTransformer
from gptrec_rl.models.recommender import Recommender, Strategy
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

    def recommender(self, strategy: Strategy | None = None, precision: Precision = "auto") -> Recommender:
        """Return the model with Top-K, its own, or with Next-K by appending each item to the history."""
        from gptrec_rl.decoding import Appending, TopK

        scorer = TopK(self, precision)
        return Appending(scorer) if strategy == "next-k" else scorer
