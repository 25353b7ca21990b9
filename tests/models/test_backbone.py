"""The shared-prefix passes against a plain GPT-2 that runs the whole sequence for every choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptrec_rl.data import Histories
from gptrec_rl.models import backbone
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import autocast

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
NOTHING_SEEN = np.ones(12, dtype=bool)


def draw_slates(n_histories: int, n_lists: int, k: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(n_histories, n_lists, 12, generator=random).argsort(dim=-1)[:, :, :k] + 1


@pytest.mark.parametrize(("n_lists", "k"), [(1, 1), (1, 3), (8, 1), (8, 3)])
def test_logits_of_lists_as_branches_are_those_of_a_plain_gpt2(
    n_lists: int, k: int, make_policy: Callable[..., GPTRec], plain_log_probs: Callable[..., torch.Tensor]
) -> None:
    policy = make_policy()
    slates = draw_slates(len(HISTORIES), n_lists, k)
    with torch.no_grad():
        logits = policy.slate_logits(Histories.of(HISTORIES), slates)
    assert logits.shape == (len(HISTORIES), n_lists, k, 12)
    for row, history in enumerate(HISTORIES):
        for number in range(n_lists):
            for place in range(k):
                earlier = slates[row, number, :place].tolist()
                expected = plain_log_probs(policy, history, earlier, NOTHING_SEEN)
                open_items = ~expected.isneginf()
                got = torch.log_softmax(logits[row, number, place][open_items], dim=0)
                torch.testing.assert_close(got, expected[open_items], atol=1e-4, rtol=0)


def test_a_history_is_encoded_alike_alone_and_beside_longer_ones(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy()
    with torch.no_grad():
        together = backbone.encode(policy.network.transformer, policy.tokens(Histories.of(HISTORIES)))
        for row, history in enumerate(HISTORIES):
            alone = backbone.encode(policy.network.transformer, policy.tokens(Histories.of([history])))
            torch.testing.assert_close(together.state[row], alone.state[0], atol=1e-5, rtol=0)


def test_growing_item_by_item_equals_growing_at_once(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy()
    gpt2 = policy.network.transformer
    slates = draw_slates(len(HISTORIES), 4, 3)
    with torch.no_grad():
        encoded = backbone.encode(gpt2, policy.tokens(Histories.of(HISTORIES)))
        at_once, _ = backbone.extend(gpt2, encoded, slates, policy.positions(0, 3))
        past, states = None, []
        for place in range(3):
            tokens = slates[:, :, place : place + 1]
            state, past = backbone.extend(gpt2, encoded, tokens, policy.positions(place, place + 1), past)
            states.append(state)
    torch.testing.assert_close(torch.cat(states, dim=2), at_once, atol=1e-5, rtol=0)


def test_a_list_sees_neither_its_later_items_nor_other_lists(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy()
    histories = Histories.of([[1, 2]])
    slates = torch.tensor([[[3, 4, 5], [6, 7, 8]]])
    changed = torch.tensor([[[3, 4, 9], [10, 11, 12]]])
    with torch.no_grad():
        before = policy.slate_logits(histories, slates)[0, 0]
        after = policy.slate_logits(histories, changed)[0, 0]
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)  # [K, I]: chosen after 0, 1 and 2 items


def test_gradients_are_those_of_a_plain_gpt2(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy()
    history, slate = [7, 2, 9], [4, 1, 12]
    logits = policy.slate_logits(Histories.of([history]), torch.tensor([[slate]]))[0, 0]
    logits.square().sum().backward()
    got = {name: weights.grad.clone() for name, weights in policy.named_parameters() if weights.grad is not None}
    policy.zero_grad()
    # Position ids by Appendix B: 3, 2, 1 for the items, 0 for the separator, then n + 1 and n + 2 with n = 5.
    whole = policy.network(
        input_ids=torch.tensor([[7, 2, 9, 13, 4, 1]]), position_ids=torch.tensor([[3, 2, 1, 0, 6, 7]])
    ).logits[0, -3:, 1:13]
    whole.square().sum().backward()
    for name, weights in policy.named_parameters():
        torch.testing.assert_close(got[name], weights.grad, atol=1e-3, rtol=1e-4)


def test_bf16_stays_near_and_its_logits_are_fp32(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy()
    histories, slates = Histories.of(HISTORIES), draw_slates(len(HISTORIES), 4, 3)
    with torch.no_grad():
        exact = policy.slate_logits(histories, slates)
        with autocast("bf16", policy.device):
            near = policy.slate_logits(histories, slates)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.3, rtol=0)  # bf16 has 8 bits; logits reach about 10
