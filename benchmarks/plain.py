"""The plain ways, with `transformers` and torch alone: what somebody writes who reads the paper and knows GPT-2.

Appendix B's layout: padding is 0, items are 1..I, the separator is I + 1; the separator has position 0, the last item
of a history 1, the one before it 2, ...; the i-th recommended item has n + i. Items that are in the history, or earlier
in the list, can't be chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

Lists = tuple[torch.Tensor, torch.Tensor]
"""Items [B, K] int64 and the log-probability of each, [B, K] float32."""


def network(
    n_items: int, history_length: int = 200, slate_length: int = 10, seed: int = 0, activation: str = "gelu_new"
) -> GPT2LMHeadModel:
    """Make an untrained GPT-2 of the paper's size (section 4.3), in eval mode; the activation is GPT-2's own."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=n_items + 2,
        n_positions=history_length + slate_length + 1,
        n_embd=256,
        n_layer=3,
        n_head=4,
        activation_function=activation,
        bos_token_id=n_items + 1,
        eos_token_id=n_items + 1,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


@torch.inference_mode()
def generate(
    network: GPT2LMHeadModel, histories: Sequence[Sequence[int]], n: int, k: int, generator: torch.Generator | None
) -> Lists:
    """Write one list a history: one history at a time, the whole sequence encoded again for each item.

    Args:
        network: the policy.
        histories: B whole histories, of which the last n items are read.
        n: longest history that is read.
        k: length of the lists.
        generator: source of the samples; None takes the most probable item.
    """
    separator = network.config.vocab_size - 1
    lists, log_probs = [], []
    for history in histories:
        read = list(history)[-n:]
        items: list[int] = []
        chances: list[float] = []
        for _ in range(k):
            logits = network(
                input_ids=torch.tensor([[*read, separator, *items]]),
                position_ids=torch.tensor([[*range(len(read), -1, -1), *range(n + 1, n + 1 + len(items))]]),
            ).logits[0, -1]
            logits[[0, separator, *history, *items]] = -torch.inf
            choices = logits.log_softmax(dim=-1)
            items.append(int(_choose(choices[None], generator)))
            chances.append(float(choices[items[-1]]))
        lists.append(items)
        log_probs.append(chances)
    return torch.tensor(lists), torch.tensor(log_probs)


@torch.inference_mode()
def generate_cached(
    network: GPT2LMHeadModel, histories: Sequence[Sequence[int]], n: int, k: int, generator: torch.Generator | None
) -> Lists:
    """Write one list a history, the whole batch at once, with the model's own key-value cache.

    Arguments as in `generate`. Histories are padded to the longest of the batch; the softmax is in fp32 whatever the
    network's type.
    """
    separator = network.config.vocab_size - 1
    tokens, is_real, positions = _pad([list(history)[-n:] for history in histories], separator)
    may = torch.ones(len(histories), network.config.vocab_size, dtype=torch.bool)
    may[:, [0, separator]] = False
    for row, history in enumerate(histories):
        may[row, list(history)] = False
    output = network(input_ids=tokens, attention_mask=is_real, position_ids=positions, use_cache=True, logits_to_keep=1)
    items, log_probs = [], []
    for place in range(k):
        logits = output.logits[:, -1].float().masked_fill(~may, -torch.inf)  # [B, V]
        choices = logits.log_softmax(dim=-1)
        chosen = _choose(choices, generator)  # [B, 1]
        may.scatter_(1, chosen, False)
        items.append(chosen)
        log_probs.append(choices.gather(1, chosen))
        if place < k - 1:
            is_real = torch.cat([is_real, torch.ones_like(chosen)], dim=1)
            output = network(
                input_ids=chosen,
                attention_mask=is_real,
                position_ids=torch.full_like(chosen, n + 1 + place),
                past_key_values=output.past_key_values,
                use_cache=True,
                logits_to_keep=1,
            )
    return torch.cat(items, dim=1), torch.cat(log_probs, dim=1)


def _choose(log_probs: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """[B, V] -> [B, 1]."""
    if generator is None:
        return log_probs.argmax(dim=-1, keepdim=True)
    return torch.multinomial(log_probs.exp(), 1, generator=generator)


def _pad(
    histories: Sequence[Sequence[int]], separator: int, width: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad on the left to the longest, or to `width`: tokens, attention mask and position ids, each [B, S]."""
    width = max(map(len, histories)) if width is None else width
    tokens = torch.tensor([[0] * (width - len(history)) + [*history, separator] for history in histories])
    positions = torch.arange(width, -1, -1).expand_as(tokens)
    return tokens, (tokens > 0).long(), positions


@dataclass(frozen=True)
class Rollout:
    """B lists to learn from, each with its own copy of its history.

    Attributes:
        histories: B whole histories.
        lists: [B, K] int64.
        log_probs: of each item when it was sampled, [B, K] float32.
        rewards: after each item, [B, K] float32.
    """

    histories: Sequence[Sequence[int]]
    lists: torch.Tensor
    log_probs: torch.Tensor
    rewards: torch.Tensor


def list_inputs(
    histories: Sequence[Sequence[int]], lists: torch.Tensor, n: int, separator: int, width: int | None = None
) -> dict[str, torch.Tensor]:
    """Lay out histories, separators and all but the last item of each list; the last K places choose the K items."""
    tokens, is_real, positions = _pad([list(history)[-n:] for history in histories], separator, width)
    later = lists[:, :-1]
    later_positions = torch.arange(n + 1, n + 1 + later.shape[1]).expand_as(later)
    return {
        "input_ids": torch.cat([tokens, later], dim=1),
        "attention_mask": torch.cat([is_real, torch.ones_like(later)], dim=1),
        "position_ids": torch.cat([positions, later_positions], dim=1),
    }


def list_log_probs(
    network: GPT2LMHeadModel,
    histories: Sequence[Sequence[int]],
    lists: torch.Tensor,
    n: int,
    width: int | None = None,
) -> torch.Tensor:
    """Return the log-probability of each item of given lists, [B, K], from the logits of all places, [B, S, V]."""
    separator, k = network.config.vocab_size - 1, lists.shape[1]
    logits = network(**list_inputs(histories, lists, n, separator, width)).logits[:, -k:]  # [B, K, V]
    may = torch.ones(logits.shape, dtype=torch.bool)
    may[:, :, [0, separator]] = False
    for row, history in enumerate(histories):
        may[row, :, list(history)] = False
    for place in range(1, k):
        may[:, place].scatter_(1, lists[:, :place], False)
    choices = logits.float().masked_fill(~may, -torch.inf).log_softmax(dim=-1)
    return choices.gather(-1, lists[..., None])[..., 0]


class Ppo:
    """PPO (Appendix A.3): a policy and a value model, each a GPT-2 of its own, one gradient step an update.

    Args:
        network: where both start from.
        n: longest history that is read.
        seed: of the value model's head.
    """

    clip, gamma, gae_lambda, norm = 0.2, 0.99, 0.9, 1.0

    def __init__(self, network: GPT2LMHeadModel, n: int, seed: int = 0) -> None:
        self.policy = copy.deepcopy(network)
        self.value = copy.deepcopy(network.transformer)
        torch.manual_seed(seed)
        self.head = nn.Linear(network.config.n_embd, 1)
        self._n = n
        self._optimisers = [
            torch.optim.AdamW(self.policy.parameters(), lr=3e-5, weight_decay=0.01),
            torch.optim.AdamW([*self.value.parameters(), *self.head.parameters()], lr=1e-4, weight_decay=0.01),
        ]

    def update(self, rollout: Rollout) -> float:
        """Take one step of both models and return the loss."""
        values = self._values(rollout)
        advantages = self._advantages(rollout.rewards, values.detach())
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        returns = _discounted_sums(rollout.rewards, self.gamma)
        log_probs = list_log_probs(self.policy, rollout.histories, rollout.lists, self._n)
        ratios = (log_probs - rollout.log_probs).exp()
        clipped = ratios.clamp(1 - self.clip, 1 + self.clip)
        policy_loss = -torch.minimum(ratios * advantages, clipped * advantages).mean()
        loss = policy_loss + ((values - returns) ** 2).mean()
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.norm)
        nn.utils.clip_grad_norm_([*self.value.parameters(), *self.head.parameters()], self.norm)
        for optimiser in self._optimisers:
            optimiser.step()
        return loss.item()

    def _values(self, rollout: Rollout) -> torch.Tensor:
        """Return the value of each state, [B, K]."""
        separator, k = self.policy.config.vocab_size - 1, rollout.lists.shape[1]
        states = self.value(**list_inputs(rollout.histories, rollout.lists, self._n, separator)).last_hidden_state
        values: torch.Tensor = self.head(states[:, -k:])[..., 0]
        return values

    def _advantages(self, rewards: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
        return _discounted_sums(rewards + self.gamma * following - values, self.gamma * self.gae_lambda)


def _discounted_sums(terms: torch.Tensor, discount: float) -> torch.Tensor:
    sums = terms.clone()
    for place in range(terms.shape[1] - 2, -1, -1):
        sums[:, place] += discount * sums[:, place + 1]
    return sums


class Pretraining:
    """Stage 1: cross-entropy on the teacher's lists, each example padded to n; fp32, Adam."""

    def __init__(self, network: GPT2LMHeadModel, n: int) -> None:
        self.student = network
        self._n = n
        self._optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def update(self, histories: Sequence[Sequence[int]], lists: torch.Tensor) -> float:
        """Take one step on B histories and their lists [B, K], and return the loss in nats per item."""
        loss = -list_log_probs(self.student, histories, lists, self._n, width=self._n).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()
