"""Top-K: every item is scored by one pass over the history and the best K are the list (section 2.2)."""

from __future__ import annotations

import numpy as np
import torch

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.decoding.next_k import BATCH_SIZE
from gptrec_rl.models import backbone
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import autocast
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates, top_k


class TopK:
    """A GPTRec policy as a scoring recommender: an item's score is its logit as the first of the list."""

    def __init__(self, policy: GPTRec, precision: Precision = "auto") -> None:
        self._policy = policy.eval()
        self._precision = precision

    @torch.inference_mode()
    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the logits after the separator, [B, I] float32."""
        histories = Histories.of(histories)
        scores = np.zeros((len(histories), self._policy.n_items), dtype=np.float32)
        order = np.argsort(np.minimum(histories.lengths, self._policy.history_length), kind="stable")
        with autocast(self._precision, self._policy.device):
            for start in range(0, len(order), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                encoded = backbone.encode(self._policy.network.transformer, self._policy.tokens(histories.take(rows)))
                scores[rows] = self._policy.item_logits(encoded.state).cpu().numpy()
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K items with the largest logits; see `Recommender`."""
        histories = Histories.of(histories)
        return top_k(self.score(histories), candidates(histories, self._policy.n_items, k, allowed), k)
