"""Top-K: every item is scored by one pass over the history and the best K are the list (section 2.2)."""

from __future__ import annotations

import numpy as np
import torch

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.next_item import NextItemTransformer
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.sequence import parts_of
from gptrec_rl.models.work_sizes import work_sizes_of
from gptrec_rl.recommender import HistoriesLike, Slates, candidates, top_k


class TopK:
    """A Transformer as a scoring recommender: an item's score is its logit as the next item, or first of the list.

    To be made anew whenever the weights have changed.
    """

    @torch.inference_mode()
    def __init__(self, model: GPTRec | NextItemTransformer, precision: Precision = "auto") -> None:
        self._model = model.eval()
        self._backbone = model.backbone(product_dtype(precision, model.device, model.width))

    @torch.inference_mode()
    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the logits after history and marker, [B, I] float32."""
        histories, model = Histories.of(histories, self._model.n_items), self._model
        scores = np.zeros((len(histories), model.n_items), dtype=np.float32)
        lengths = np.minimum(histories.lengths, model.history_length) + 1
        for rows in parts_of(lengths, work_sizes_of(model.device), model.n_items):
            states = self._backbone.encode(model.lay_out(histories.take(rows))).states
            scores[rows] = model.item_logits(states).cpu().numpy()
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K items with the largest logits; see `Recommender`."""
        histories = Histories.of(histories, self._model.n_items)
        return top_k(self.score(histories), candidates(histories, self._model.n_items, k, allowed), k)
