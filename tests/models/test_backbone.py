"""The shared-prefix passes against a plain GPT-2 that runs the whole sequence for every choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from gptrec_rl.data import Histories
from gptrec_rl.models.backbone import Backbone, Branches, Encoded
from gptrec_rl.models.gpt2 import Gpt2
from gptrec_rl.models.gptrec import GPTRec

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
NOTHING_SEEN = np.ones(12, dtype=bool)
UNSORTED = [3, 40, 0, 17, 2, 1, 0, 5, 70, 16, 33, 31, 24, 28, 18]  # n = 40: buckets of several widths, and spare tokens
MakePolicy = Callable[..., GPTRec]


def draw_slates(n_histories: int, n_lists: int, k: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(n_histories, n_lists, 12, generator=random).argsort(dim=-1)[:, :, :k] + 1


def draw_histories(lengths: Sequence[int]) -> list[list[int]]:
    rng = np.random.default_rng(2)
    return [rng.integers(1, 13, length).tolist() for length in lengths]


def plain_logits(policy: GPTRec, history: list[int], slate: list[int]) -> torch.Tensor:
    """Return the logits of each choice from one plain run over history, separator and list, [K, I]; with gradient."""
    n, read = policy.history_length, history[-policy.history_length :]
    positions = [*range(len(read), -1, -1), *range(n + 1, n + len(slate))]  # Appendix B
    tokens = [*read, policy.separator, *slate[:-1]]
    logits = policy.network(input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions])).logits
    chosen: torch.Tensor = logits[0, -len(slate) :, 1 : policy.n_items + 1]
    return chosen


def gradients(policy: GPTRec, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    loss.backward()
    return {name: weights.grad.clone() for name, weights in policy.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize(("n_lists", "k"), [(1, 1), (1, 3), (8, 1), (8, 3)])
def test_logits_of_lists_as_branches_are_those_of_a_plain_gpt2(
    n_lists: int, k: int, make_policy: MakePolicy, plain_log_probs: Callable[..., torch.Tensor]
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


@pytest.mark.parametrize(("n_lists", "k"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_logits_and_gradients_in_many_buckets_are_those_of_a_plain_gpt2(
    n_lists: int, k: int, make_policy: MakePolicy
) -> None:
    policy, histories = make_policy(history_length=40), draw_histories(UNSORTED)
    slates = draw_slates(len(histories), n_lists, k)
    sequences = policy.lay_out(Histories.of(histories), slates.numpy())
    assert len(sequences.buckets) > 2
    assert sequences.sizes[-1] > 0
    logits = policy.slate_logits(Histories.of(histories), slates)
    plain = torch.stack(
        [
            torch.stack([plain_logits(policy, history, slate) for slate in lists])
            for history, lists in zip(histories, slates.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)) / logits.numel() ** 0.5
    got, expected = (gradients(policy, (outcome * weights).sum()) for outcome in (logits, plain))
    assert got.keys() == expected.keys() == dict(policy.named_parameters()).keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-4, rtol=1e-4)


def test_the_order_of_a_batch_changes_nothing(make_policy: MakePolicy) -> None:
    policy, histories = make_policy(history_length=40), draw_histories(UNSORTED)
    slates = draw_slates(len(histories), 2, 3)
    order = np.argsort([-len(history) for history in histories])
    with torch.no_grad():
        unsorted = policy.slate_logits(Histories.of(histories), slates)
        sorted_by_length = policy.slate_logits(Histories.of([histories[row] for row in order]), slates[order])
    torch.testing.assert_close(sorted_by_length, unsorted[order], atol=1e-5, rtol=0)


def test_a_history_is_encoded_alike_alone_and_beside_longer_ones(make_policy: MakePolicy) -> None:
    policy, histories = make_policy(history_length=40), draw_histories(UNSORTED)
    backbone = policy.backbone(torch.float32)
    with torch.no_grad():
        together = backbone.encode(policy.lay_out(Histories.of(histories)))
        for row, history in enumerate(histories):
            alone = backbone.encode(policy.lay_out(Histories.of([history])))
            torch.testing.assert_close(together.states[row], alone.states[0], atol=1e-5, rtol=0)


def grow(backbone: Backbone, policy: GPTRec, encoded: Encoded, slates: torch.Tensor) -> torch.Tensor:
    """Return the states behind each of the lists' items but the last, grown item by item, [B, G, K - 1, D]."""
    n_lists, n_later = slates.shape[1], slates.shape[2] - 1
    branches = Branches(backbone, encoded, n_lists, n_lists * n_later)
    own = torch.eye(n_lists, dtype=torch.bool)
    return torch.stack(
        [
            branches.append(slates[:, :, place], policy.positions(place, place + 1), own.repeat(1, place + 1))
            for place in range(n_later)
        ],
        dim=2,
    )


@pytest.mark.parametrize("n_lists", [1, 4])
@pytest.mark.parametrize("lengths", [UNSORTED, [40], [7, 7, 7, 7]], ids=["many", "one", "alike"])
def test_growing_item_by_item_equals_growing_at_once(n_lists: int, lengths: list[int], make_policy: MakePolicy) -> None:
    policy, histories = make_policy(history_length=40), Histories.of(draw_histories(lengths))
    backbone, slates = policy.backbone(torch.float32), draw_slates(len(lengths), n_lists, 3)
    with torch.no_grad():
        at_once = backbone.slate_states(policy.lay_out(histories, slates.numpy()))
        encoded = backbone.encode(policy.lay_out(histories))
        grown = grow(backbone, policy, encoded, slates)
    torch.testing.assert_close(encoded.states[:, None].expand(-1, n_lists, -1), at_once[:, :, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(grown, at_once[:, :, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [UNSORTED, [40], [7, 7, 7, 7]], ids=["many", "one", "alike"])
def test_a_token_sees_of_those_before_it_what_it_is_told_to(lengths: list[int], make_policy: MakePolicy) -> None:
    policy = make_policy(history_length=40, slate_length=5)
    histories, (first, wrong, second, third) = Histories.of(draw_histories(lengths)), (7, 3, 9, 2)
    slates = torch.tensor([[[first, second, third, 1], [first, wrong, 4, 1]]]).repeat(len(lengths), 1, 1)
    backbone = policy.backbone(torch.float32)
    with torch.no_grad():
        expected = backbone.slate_states(policy.lay_out(histories, slates.numpy()))  # [B, 2, 4, D]
        branches = Branches(backbone, backbone.encode(policy.lay_out(histories)), 3, 4)
        places = policy.positions(0, 2)[[0, 1, 1]].repeat(len(lengths))
        together = torch.tensor([[first, wrong, second]]).repeat(len(lengths), 1)
        sees = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
        states = branches.append(together, places, sees)
        last = branches.append(torch.full((len(lengths), 1), third), policy.positions(2, 3), ~torch.eye(4).bool()[1:2])
    torch.testing.assert_close(states[:, 0], expected[:, 0, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(states[:, 1], expected[:, 1, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(states[:, 2], expected[:, 0, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(last[:, 0], expected[:, 0, 3], atol=1e-5, rtol=0)  # it doesn't see the wrong one


def test_a_list_sees_neither_its_later_items_nor_other_lists(make_policy: MakePolicy) -> None:
    policy = make_policy()
    histories = Histories.of([[1, 2]])
    slates = torch.tensor([[[3, 4, 5], [6, 7, 8]]])
    changed = torch.tensor([[[3, 4, 9], [10, 11, 12]]])
    with torch.no_grad():
        before = policy.slate_logits(histories, slates)[0, 0]
        after = policy.slate_logits(histories, changed)[0, 0]
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)  # [K, I]: chosen after 0, 1 and 2 items


def test_gradients_are_those_of_a_plain_gpt2(make_policy: MakePolicy) -> None:
    policy = make_policy()
    history, slate = [7, 2, 9], [4, 1, 12]
    got = gradients(policy, policy.slate_logits(Histories.of([history]), torch.tensor([[slate]])).square().sum())
    # Position ids by Appendix B: 3, 2, 1 for the items, 0 for the separator, then n + 1 and n + 2 with n = 5.
    whole = policy.network(
        input_ids=torch.tensor([[7, 2, 9, 13, 4, 1]]), position_ids=torch.tensor([[3, 2, 1, 0, 6, 7]])
    ).logits[0, -3:, 1:13]
    expected = gradients(policy, whole.square().sum())
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-3, rtol=1e-4)


def test_without_gradients_the_states_are_the_same(make_policy: MakePolicy) -> None:
    policy, slates = make_policy(), draw_slates(len(HISTORIES), 2, 3)
    with_gradients = policy.slate_logits(Histories.of(HISTORIES), slates)
    with torch.no_grad():
        without = policy.slate_logits(Histories.of(HISTORIES), slates)
    assert with_gradients.requires_grad
    torch.testing.assert_close(without, with_gradients, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["embd_pdrop", "attn_pdrop", "resid_pdrop"])
@pytest.mark.parametrize("k", [1, 3])
def test_dropout_is_for_training_alone(k: int, kind: str, make_policy: MakePolicy) -> None:
    without = make_policy().transformer
    policy = GPTRec(Gpt2(without.config.model_copy(update={kind: 0.3}), without.state_dict())).eval()
    histories, slates = Histories.of(HISTORIES), draw_slates(len(HISTORIES), 2, k)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return policy.slate_logits(histories, slates)

    assert torch.equal(logits(), logits())
    policy.train()
    assert not torch.equal(logits(), logits())


def test_dropout_of_attention_leaves_out_whole_tokens(make_policy: MakePolicy) -> None:
    layer = make_policy(dropout=0.3).train().backbone(torch.float32).layers[0]
    queries, values = torch.zeros(3, 2, 20, 8), torch.ones(3, 2, 20, 8)  # [b, H, S, d]: attention is uniform
    fused = layer.attend_fused(queries, queries, values)
    projected = torch.cat([torch.zeros(60, 32), torch.ones(60, 16)], dim=1)
    plain = layer.attend([projected], [torch.zeros(1, 20, 20)], [3])
    for attended in (fused, plain):
        of_heads = attended.unflatten(1, (2, 8))  # [b S, H, d]
        torch.testing.assert_close(of_heads, of_heads[:, :, :1].expand_as(of_heads))
        assert of_heads[:, :, 0].unique().numel() > 5
        assert attended.mean().item() == pytest.approx(1, abs=0.2)


def test_bf16_stays_near_and_its_logits_are_fp32(make_policy: MakePolicy) -> None:
    policy = make_policy()
    histories, slates = Histories.of(HISTORIES), draw_slates(len(HISTORIES), 4, 3)
    with torch.no_grad():
        exact = policy.slate_logits(histories, slates)
        near = policy.slate_logits(histories, slates, torch.bfloat16)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.3, rtol=0)  # bf16 has 8 bits; logits reach about 10


def test_the_last_norm_is_in_fp32(make_policy: MakePolicy) -> None:
    policy, hidden = make_policy(), torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.inference_mode():
        normed = policy.backbone(torch.bfloat16).last_norm(hidden)
        assert torch.equal(normed, policy.network.transformer.ln_f(hidden.float()))
    assert not torch.equal(normed, normed.bfloat16().float())


def test_the_residual_stream_is_as_precise_as_the_products(make_policy: MakePolicy) -> None:
    policy, tokens, positions = make_policy(), torch.tensor([1, 2]), torch.tensor([1])
    for dtype in (torch.float32, torch.bfloat16):
        with torch.inference_mode():
            assert policy.backbone(dtype).embed(tokens, positions).dtype == dtype
            assert policy.backbone(dtype).encode(policy.lay_out(Histories.of([[1]]))).states.dtype == torch.float32
        assert policy.backbone(dtype).embed(tokens, positions).dtype == dtype
        assert policy.slate_logits(Histories.of([[1]]), draw_slates(1, 2, 3), dtype).dtype == torch.float32
