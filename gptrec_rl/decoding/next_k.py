"""Next-K: the list is written item by item (section 3.1, equations 3 and 4), each item knowing those before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models import backbone
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import autocast
from gptrec_rl.models.recommender import HistoriesLike, Slates, candidates

BATCH_SIZE = 64


@dataclass(frozen=True)
class Generation:
    """G lists for each of B histories.

    Attributes:
        items: [B, G, K] int64.
        log_probs: of each item under the masked distribution it was chosen from, [B, G, K] float32.
    """

    items: torch.Tensor
    log_probs: torch.Tensor


@torch.inference_mode()
def generate(
    policy: GPTRec,
    histories: Histories,
    k: int,
    n_lists: int = 1,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    allowed: np.ndarray | None = None,
    precision: Precision = "fp32",
) -> Generation:
    """Write G lists behind each history, which is encoded once, with a cache of keys and values.

    Args:
        policy: the model; its training mode is the caller's business (eval mode has no dropout).
        histories: B whole histories; the model reads the last n items, the mask knows all.
        k: length of the lists, at most the policy's `slate_length`.
        n_lists: G.
        temperature: divides the logits before the softmax, > 0.
        generator: source of the samples, on the policy's device; None takes the most probable item at each place,
            of equally probable ones that with the smaller id.
        allowed: [I] or [B, I] bool, column i - 1 says whether item i may be recommended.
        precision: of the matrix products; logits and softmax are fp32.

    Raises:
        InputError: K is longer than the policy's lists, or a history leaves fewer than K items.
    """
    if k > policy.slate_length:
        raise InputError(
            f"K = {k} is longer than the lists of {policy.slate_length} items that this model was trained to write; "
            "ask for fewer items or train with a longer model.slate_length"
        )
    may = torch.from_numpy(candidates(histories, policy.n_items, k, allowed)).to(policy.device)
    is_taken = ~may[:, None].repeat(1, n_lists, 1)  # [B, G, I]
    items, log_probs = [], []
    gpt2 = policy.network.transformer
    with autocast(precision, policy.device):
        encoded = backbone.encode(gpt2, policy.tokens(histories))
        state = encoded.state[:, None, None].expand(-1, n_lists, 1, -1)  # [B, G, 1, D]
        past = None
        for place in range(k):
            logits = policy.item_logits(state[:, :, 0]).masked_fill(is_taken, float("-inf"))  # [B, G, I]
            choices = torch.log_softmax(logits / temperature, dim=-1)
            chosen = _choose(choices, generator)  # [B, G, 1]
            is_taken.scatter_(-1, chosen, True)
            items.append(chosen + 1)
            log_probs.append(choices.gather(-1, chosen))
            if place < k - 1:
                state, past = backbone.extend(gpt2, encoded, items[-1], policy.positions(place, place + 1), past)
    return Generation(torch.cat(items, dim=-1), torch.cat(log_probs, dim=-1))


def _choose(log_probs: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Take the most probable or a sampled place of the last dimension, which is kept with size 1."""
    if generator is None:
        return log_probs.argmax(dim=-1, keepdim=True)
    return torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=generator).unflatten(0, log_probs.shape[:2])


class NextK:
    """A GPTRec policy as a recommender that writes its lists greedily; the scores are log-probabilities."""

    def __init__(self, policy: GPTRec, precision: Precision = "auto") -> None:
        self._policy = policy.eval()
        self._precision = precision

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Write one list a history; see `Recommender`. Histories of similar length are encoded together."""
        histories = Histories.of(histories)
        may = candidates(histories, self._policy.n_items, k, allowed)
        order = np.argsort(np.minimum(histories.lengths, self._policy.history_length), kind="stable")
        items = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.zeros((len(histories), k), dtype=np.float32)
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            written = generate(self._policy, histories.take(rows), k, allowed=may[rows], precision=self._precision)
            items[rows] = written.items[:, 0].cpu().numpy()
            scores[rows] = written.log_probs[:, 0].cpu().numpy()
        return Slates(items, scores)
