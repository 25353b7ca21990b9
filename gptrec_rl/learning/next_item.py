"""Training on shifted sequences: at each place of a history, predict the next item (section 2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from gptrec_rl.config import NextItemConfig, SASRecConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.decoding.top_k import TopK
from gptrec_rl.evaluation import lists_of
from gptrec_rl.learning.cross_entropy import softmax_cross_entropy
from gptrec_rl.learning.examples import draw_windows
from gptrec_rl.learning.training import AdamTraining
from gptrec_rl.metrics import ndcg
from gptrec_rl.models.next_item import NextItemTransformer
from gptrec_rl.models.sequence import PADDING, parts_of
from gptrec_rl.models.work_sizes import work_sizes_of
from gptrec_rl.recommender import ScoringRecommender

VALIDATED = 10
"""Items of the lists that a model is validated by."""
VALIDATES = f"1 - NDCG@{VALIDATED}"


def validation_loss(model: ScoringRecommender, split: Split) -> float:
    """Return 1 - NDCG@10 of a model's Top-K lists for the validation users, 0..1."""
    cases = split.validation
    items = lists_of(model, cases.histories, split, "the model", VALIDATED)
    return 1.0 - float(ndcg(items, cases.ground_truth, VALIDATED).mean())


class NextItemTraining(AdamTraining[NextItemTransformer]):
    """Training of SASRec or GPTRec-Shifting on windows of users' histories, a prediction at every place.

    Args:
        network: untrained, trained in place.
        split: the data.
        config: budgets and settings.
    """

    validates = VALIDATES

    def __init__(self, network: NextItemTransformer, split: Split, config: NextItemConfig) -> None:
        super().__init__(network, split, config)
        self._split = split
        # None: the softmax over all items.
        self._binary_loss = config if isinstance(config, SASRecConfig) and config.loss != "softmax" else None

    def _validation_loss(self) -> float:
        return validation_loss(TopK(self.network, self.config.precision), self._split)

    def _losses(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        users, windows = draw_windows(self._split, self.config.batch_size, self.network.history_length + 1, rng)
        for rows in self._parts(windows.lengths):
            part = windows.take(rows)
            yield self._part_loss(users[rows], part, rng) * (len(part.values) / len(windows.values))

    def _parts(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Cut a batch of windows; a binary loss holds scores, or embeddings, of all places of a part."""
        network, sizes = self.network, work_sizes_of(self.network.device)
        if self._binary_loss is None:
            return parts_of(lengths, sizes)
        n_numbers = min(network.n_items, (1 + self._binary_loss.n_negatives) * network.item_weights.shape[1])
        n_places = min(sizes.tokens_per_part, max(1, sizes.scores_per_part // n_numbers))
        return parts_of(lengths, replace(sizes, tokens_per_part=n_places), rows_step=1)

    def _part_loss(self, users: np.ndarray, windows: Histories, rng: np.random.Generator) -> torch.Tensor:
        """Return the mean loss over all places of some windows."""
        network = self.network
        sequences = network.lay_out(Histories.of([window[:-1] for window in windows]))
        states = network.backbone(self._dtype).states(sequences)[sequences.tokens != PADDING]  # [N, D]
        targets = torch.from_numpy(windows.values.astype(np.int64)).to(network.device)  # [N]
        if self._binary_loss is None:
            return softmax_cross_entropy(states, network.item_weights, targets, self._dtype)
        seen = self._split.training.take(users).contains(network.n_items)  # [b, I]
        owners = np.repeat(np.arange(len(users)), windows.lengths)
        negatives = torch.from_numpy(draw_negatives(seen, owners, self._binary_loss.n_negatives, rng))
        choices = torch.cat([targets[:, None], negatives.to(network.device)], dim=1)
        calibration = self._binary_loss.calibration if self._binary_loss.loss == "gbce" else 0.0
        return binary_loss(scores_of(states, network.item_weights, choices), network.n_items, calibration)


def scores_of(states: torch.Tensor, item_weights: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Return the scores of some items at each place, [N, C], by the cheaper of two ways.

    Args:
        states: [N, D].
        item_weights: [I, D].
        choices: [N, C] int64 in 1..I.
    """
    if choices.shape[1] * item_weights.shape[1] < len(item_weights):  # embeddings are fewer numbers than all scores
        return torch.einsum("nd,ncd->nc", states, functional.embedding(choices - 1, item_weights))
    return functional.linear(states, item_weights).gather(1, choices - 1)


def binary_loss(scores: torch.Tensor, n_items: int, calibration: float = 0.0) -> torch.Tensor:
    """Return gSASRec's generalised binary cross-entropy (Petrov and Macdonald, 2023, equation 9), a mean over places.

    -(beta log sigma(s+) + sum over negatives of log(1 - sigma(s-))) / (1 + M), where, with alpha = M / (I - 1),
    beta = alpha (t (1 - 1 / alpha) + 1 / alpha): t = 0 is SASRec's binary cross-entropy, with beta = 1.

    Args:
        scores: s of the next item and of M others, [N, 1 + M].
        n_items: I.
        calibration: t, 0..1.
    """
    n_negatives = scores.shape[1] - 1
    alpha = n_negatives / (n_items - 1)
    beta = calibration * (alpha - 1) + 1
    positive = functional.logsigmoid(scores[:, 0])
    negative = functional.logsigmoid(-scores[:, 1:]).sum(dim=1)
    return -(beta * positive + negative).mean() / (1 + n_negatives)


def draw_negatives(seen: np.ndarray, owners: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n items for each place, uniformly from those that its user doesn't have, with replacement.

    Args:
        seen: [b, I] bool, what each user has; nobody has everything.
        owners: the user of each place, [N] int in 0..b - 1.
        n: how many.
        rng: the source of randomness.

    Returns:
        [N, n] int64 in 1..I.
    """
    items = rng.integers(1, seen.shape[1] + 1, size=(len(owners), n))
    while True:
        wrong = seen[owners[:, None], items - 1]
        if not wrong.any():
            return items
        items[wrong] = rng.integers(1, seen.shape[1] + 1, size=int(wrong.sum()))
