"""Top-K: every item is scored by one pass over the history and the best K are the list (section 2.2)."""

from __future__ import annotations

import numpy as np
import torch

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates, top_k
from gptrec_rl.models.sequence import parts_of


class TopK:
    """A GPTRec policy as a scoring recommender: an item's score is its logit as the first of the list."""

    def __init__(self, policy: GPTRec, precision: Precision = "auto") -> None:
        self._policy = policy.eval()
        self._precision = precision

    @torch.inference_mode()
    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the logits after the separator, [B, I] float32."""
        histories, policy = Histories.of(histories), self._policy
        scores = np.zeros((len(histories), policy.n_items), dtype=np.float32)
        backbone = policy.backbone(product_dtype(self._precision, policy.device))
        for rows in parts_of(np.minimum(histories.lengths, policy.history_length) + 1, policy.n_items):
            states = backbone.encode(policy.lay_out(histories.take(rows))).states
            scores[rows] = policy.item_logits(states).cpu().numpy()
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K items with the largest logits; see `Recommender`."""
        histories = Histories.of(histories)
        return top_k(self.score(histories), candidates(histories, self._policy.n_items, k, allowed), k)
