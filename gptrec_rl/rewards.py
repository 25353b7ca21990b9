"""The rewards of Table 1, position by position, one by a reward model, and one for whole lists only (calibration).

Generators compute them, unweighted, for every list they make. A reward is any callable
`reward(slates [B, G, K], ground_truth [B], histories, catalogue)` that returns [B, G, K], or [B, G] when it knows whole
lists only. The rewards of a list sum to its metric (to minus the metric for PCOUNT).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, softmax

from gptrec_rl.data import Catalogue, Histories
from gptrec_rl.data.histories import item_numbers
from gptrec_rl.metrics import discounts, genre_directions
from gptrec_rl.recommender import ScoringRecommender

Reward = Callable[[np.ndarray, np.ndarray, Histories, Catalogue], np.ndarray]


def ndcg(slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue) -> np.ndarray:
    """Reward the held-out item where it stands: 1 / log2(rank + 1) there, 0 elsewhere, [B, G, K] float32."""
    relevant = slates == ground_truth[:, None, None]
    gains: np.ndarray = relevant * discounts(slates.shape[2])
    return gains.astype(np.float32)


def ild(slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue) -> np.ndarray:
    """Reward each item's genre distance to the items before it: sum of distances / (K (K - 1)), [B, G, K] float32."""
    k = slates.shape[2]
    directions = genre_directions(slates, catalogue.genres)  # [B, G, K, n_genres]
    before = np.cumsum(directions, axis=2) - directions
    distances: np.ndarray = np.arange(k) - (directions * before).sum(
        axis=3
    )  # place i has i items before it, i = 0..K-1
    distances /= max(k * (k - 1), 1)
    return distances.astype(np.float32)


@dataclass(frozen=True)
class PCount:
    """Charge each item its share of the training interactions.

    Attributes:
        frequencies: [I] float, of the split that is trained on.
    """

    frequencies: np.ndarray

    def __call__(
        self, slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue
    ) -> np.ndarray:
        """Return minus the frequency of each item, [B, G, K] float32."""
        charges: np.ndarray = -self.frequencies[item_numbers(slates, len(self.frequencies)) - 1]
        return charges.astype(np.float32)


@dataclass(frozen=True)
class ExpectedNdcg:
    """Reward each item by the NDCG that a reward model expects of it: p(item) / log2(rank + 1).

    The held-out item says little about one history: most lists miss it and earn nothing. A model trained to predict the
    next item says how likely each item is, so every list earns something, and nearly without noise.

    Attributes:
        model: its scores have to be logits, as those of models trained by cross-entropy over all items; the softmax is
            over the items that the history doesn't hold.
    """

    model: ScoringRecommender

    def __call__(
        self, slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue
    ) -> np.ndarray:
        """Return the expected gain of each item, [B, G, K] float32."""
        scores = self.model.score(histories)
        shares = softmax(np.where(histories.contains(catalogue.n_items), -np.inf, scores), axis=1)  # [B, I]
        rows = np.arange(len(slates))[:, None, None]
        gains: np.ndarray = shares[rows, item_numbers(slates, catalogue.n_items) - 1] * discounts(slates.shape[2])
        return gains.astype(np.float32)


def calibration(slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue) -> np.ndarray:
    """Reward lists whose genres are spread as the history's are (Steck, "Calibrated recommendations", RecSys 2018).

    Formula: 1 - the Jensen-Shannon divergence in bits of the two genre distributions, in which every item shares one
    vote among its genres. Range 0..1, 1 for equal distributions. An empty history has no genres to match, so its lists
    get 0. Steck's own measure is a smoothed Kullback-Leibler divergence; this one is bounded and symmetric.

    Returns:
        [B, G] float32: defined for whole lists only.
    """
    votes = catalogue.genres / catalogue.genres.sum(axis=1, keepdims=True)  # [I, n_genres], rows sum to 1
    listed = votes[item_numbers(slates, catalogue.n_items) - 1].mean(axis=2)  # [B, G, n_genres]
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    counts = np.zeros((len(histories), votes.shape[1]))
    np.add.at(counts, owners, votes[item_numbers(histories.values, catalogue.n_items) - 1])
    liked = (counts / np.maximum(histories.lengths, 1)[:, None])[:, None, :]  # [B, 1, n_genres]
    divergence = _entropy((listed + liked) / 2) - (_entropy(listed) + _entropy(liked)) / 2  # [B, G]
    known = (histories.lengths > 0)[:, None]
    return np.where(known, 1.0 - divergence, 0.0).astype(np.float32)


def _entropy(distributions: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, in bits."""
    bits: np.ndarray = entr(distributions).sum(axis=-1) / np.log(2.0)
    return bits


def place_on_last(rewards: np.ndarray, k: int) -> np.ndarray:
    """Turn rewards of whole lists, [B, G], into rewards per position by equation (2): all on the last of the K places.

    Returns:
        [B, G, K] float32.
    """
    placed = np.zeros((*rewards.shape, k), dtype=np.float32)
    placed[..., -1] = rewards
    return placed
