"""Next-K against a plain GPT-2 over the whole sequence for every item, and what no list may ever hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from gptrec_rl.data import Histories
from gptrec_rl.decoding.guessing import GUESSES, Guesser, Tree
from gptrec_rl.decoding.masking import slate_log_probs
from gptrec_rl.decoding.next_k import (
    NextK,
    Writer,
    _first_above,
    _sample,
    generate,
)
from gptrec_rl.decoding.top_k import TopK
from gptrec_rl.errors import InputError
from gptrec_rl.models.backbone import Branches
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.recommender import candidates

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
ALL = np.ones(12, dtype=bool)
NOT_8_OR_10 = np.array([item not in (8, 10) for item in range(1, 13)])
OF_EACH = np.stack([np.arange(12) % 5 != row for row in range(5)])  # [B, I]
MakePolicy = Callable[..., GPTRec]
PlainLogProbs = Callable[..., torch.Tensor]


@pytest.mark.parametrize("allowed", [None, NOT_8_OR_10, OF_EACH], ids=["all", "some", "some of each"])
@pytest.mark.parametrize("k", [1, 3])
def test_greedy_lists_are_those_of_a_plain_gpt2(
    k: int, allowed: np.ndarray | None, make_policy: MakePolicy, plain_log_probs: PlainLogProbs
) -> None:
    policy = make_policy()
    written = generate(policy, Histories.of(HISTORIES), k, allowed=allowed)
    may = np.broadcast_to(ALL if allowed is None else allowed, (5, 12))
    for row, history in enumerate(HISTORIES):
        items: list[int] = []
        for place in range(k):
            expected = plain_log_probs(policy, history, items, may[row])
            items.append(int(expected.argmax()) + 1)
            assert float(written.log_probs[row, 0, place]) == pytest.approx(float(expected.max()), abs=1e-4)
        assert written.items[row, 0].tolist() == items


@pytest.mark.parametrize("allowed", [None, NOT_8_OR_10, OF_EACH], ids=["all", "some", "some of each"])
@pytest.mark.parametrize(("n_lists", "k", "temperature"), [(1, 1, 1.0), (1, 3, 0.5), (8, 1, 2.0), (8, 3, 1.3)])
def test_sampled_lists_have_the_log_probabilities_of_a_plain_gpt2(
    n_lists: int,
    k: int,
    temperature: float,
    allowed: np.ndarray | None,
    make_policy: MakePolicy,
    plain_log_probs: PlainLogProbs,
) -> None:
    policy = make_policy()
    generator = torch.Generator().manual_seed(3)
    written = generate(policy, Histories.of(HISTORIES), k, n_lists, temperature, generator, allowed)
    assert written.items.shape == written.log_probs.shape == (5, n_lists, k)
    may = np.broadcast_to(ALL if allowed is None else allowed, (5, 12))
    for row, history in enumerate(HISTORIES):
        for items, log_probs in zip(written.items[row].tolist(), written.log_probs[row], strict=True):
            for place, item in enumerate(items):
                expected = plain_log_probs(policy, history, items[:place], may[row], temperature)
                assert float(log_probs[place]) == pytest.approx(float(expected[item - 1]), abs=1e-4)


def test_the_mask_knows_items_that_the_model_no_longer_reads(make_policy: MakePolicy) -> None:
    policy = make_policy()
    recent = [8, 9, 10, 11, 12]
    first = int(generate(policy, Histories.of([recent]), 1).items)
    forgotten = int(generate(policy, Histories.of([[first, *recent]]), 1).items)  # the model reads the same 5 items
    assert forgotten != first


def test_seeds_decide_samples(make_policy: MakePolicy) -> None:
    policy, histories = make_policy(), Histories.of(HISTORIES)
    one, same, other = (
        generate(policy, histories, 3, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one.items, same.items)
    assert torch.equal(one.log_probs, same.log_probs)
    assert not torch.equal(one.items, other.items)


def test_lists_of_one_history_are_drawn_independently(make_policy: MakePolicy) -> None:
    written = generate(make_policy(), Histories.of([[], [4]]), 3, 8, 2.0, torch.Generator().manual_seed(0))
    assert all(len({tuple(items) for items in lists}) > 1 for lists in written.items.tolist())


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_first_items_come_as_often_as_their_probability_says(
    temperature: float, make_policy: MakePolicy, plain_log_probs: PlainLogProbs
) -> None:
    policy, history, n_draws = make_policy(), [4, 7], 20_000
    generator = torch.Generator().manual_seed(5)
    written = generate(policy, Histories.of([history]), 1, n_draws, temperature, generator)
    counts = np.bincount(written.items.numpy().ravel(), minlength=13)[1:]
    expected = plain_log_probs(policy, history, [], ALL, temperature).exp().double().numpy() * n_draws
    assert (counts[expected == 0] == 0).all()
    drawn = expected > 5  # chi-square needs a handful of each; the rare ones are taken together
    observed = np.append(counts[drawn], counts[~drawn].sum())
    wanted = np.append(expected[drawn], expected[~drawn].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 0.001


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_whole_lists_come_as_often_as_the_product_of_their_probabilities_says(
    temperature: float, make_policy: MakePolicy, plain_log_probs: PlainLogProbs
) -> None:
    policy, history, n_draws, allowed = make_policy(n_items=6), [2], 20_000, np.arange(1, 7) != 5
    histories = Histories.of([history] * 1_000)
    generator = torch.Generator().manual_seed(6)
    written = generate(policy, histories, 2, n_draws // 1_000, temperature, generator, allowed)
    counts = Counter(tuple(items) for items in written.items.flatten(0, 1).tolist())
    first = plain_log_probs(policy, history, [], allowed, temperature)
    expected = {
        (one, other): n_draws * float((first[one - 1] + second[other - 1]).exp())
        for one in (1, 3, 4, 6)
        for second in [plain_log_probs(policy, history, [one], allowed, temperature)]
        for other in (1, 3, 4, 6)
        if other != one
    }
    assert counts.keys() <= expected.keys()
    drawn = [pair for pair, times in expected.items() if times > 5]
    observed = [*(counts[pair] for pair in drawn), n_draws - sum(counts[pair] for pair in drawn) + 1]
    wanted = [*(expected[pair] for pair in drawn), n_draws - sum(expected[pair] for pair in drawn) + 1]
    assert chisquare(observed, wanted).pvalue > 0.001


def test_samples_follow_probabilities_across_blocks_and_spare_columns() -> None:
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.random((3, 3 * 64), dtype=np.float32))
    probabilities[:, rng.permutation(192)[:90]] = 0  # what may not be drawn, here and there
    probabilities[1, 64:128] = 0  # a whole block
    probabilities[:, 150:] = 0  # spare columns
    probabilities /= probabilities.sum(dim=-1, keepdim=True)
    drawn = _sample(probabilities, 50_000, torch.Generator().manual_seed(0))
    for columns, chances in zip(drawn.numpy(), probabilities.double().numpy(), strict=True):
        counts = np.bincount(columns, minlength=192)
        assert (counts[chances == 0] == 0).all()
        counts, chances = counts[chances > 0], chances[chances > 0]
        assert chisquare(counts, chances / chances.sum() * len(columns)).pvalue > 0.001


def test_levels_at_the_edges_fall_on_places_that_add_something() -> None:
    until = torch.tensor([0.0, 0.0, 0.25, 0.25, 1.0, 1.0], dtype=torch.float64)
    levels = torch.tensor([0.0, 0.1, 0.25, 0.9, 1.0, 1.5], dtype=torch.float64)
    assert _first_above(until[None], levels[None]).tolist() == [[2, 2, 4, 4, 4, 4]]


def test_a_catalogue_of_several_blocks_is_written_from_to_its_last_item(
    make_policy: MakePolicy, plain_log_probs: PlainLogProbs
) -> None:
    policy, may = make_policy(n_items=130), np.ones(130, dtype=bool)  # 2 blocks and 2 items; 62 spare columns
    allowed = np.arange(1, 131) > 124
    written = generate(policy, Histories.of([[1, 126], []]), 3, 500, 5.0, torch.Generator().manual_seed(1), allowed)
    assert set(written.items[0].ravel().tolist()) == {125, 127, 128, 129, 130}
    assert set(written.items[1].ravel().tolist()) == {125, 126, 127, 128, 129, 130}
    items = generate(policy, Histories.of([[4]]), 3).items[0, 0].tolist()
    for place, item in enumerate(items):
        assert item == int(plain_log_probs(policy, [4], items[:place], may).argmax()) + 1


def test_lists_behind_histories_of_many_lengths_are_those_of_a_plain_gpt2(
    make_policy: MakePolicy, plain_log_probs: PlainLogProbs
) -> None:
    policy, may, rng = make_policy(n_items=60, history_length=40), np.ones(60, dtype=bool), np.random.default_rng(0)
    histories = [rng.permutation(60)[:length] + 1 for length in (3, 50, 0, 17, 2, 40, 0, 16, 31)]
    written = generate(policy, Histories.of(histories), 3, 2, generator=torch.Generator().manual_seed(2))
    for history, lists, log_probs in zip(histories, written.items.tolist(), written.log_probs, strict=True):
        for items, chances in zip(lists, log_probs.tolist(), strict=True):
            for place, item in enumerate(items):
                expected = plain_log_probs(policy, history.tolist(), items[:place], may)
                assert chances[place] == pytest.approx(float(expected[item - 1]), abs=1e-4)


@pytest.mark.parametrize(("temperature", "n_guesses"), [(1.0, 10), (1.5, 10), (1.0, 2), (1.0, 16)])
def test_a_list_that_is_guessed_and_checked_is_the_one_written_item_by_item(
    temperature: float, n_guesses: int, make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GUESSES, torch.float32, n_guesses)
    policy, rng = make_policy(n_items=60, history_length=40, slate_length=8), np.random.default_rng(0)
    histories = [rng.permutation(52)[:length] + 1 for length in (3, 50, 0, 17, 2, 40, 0, 16, 31)]
    for k in (1, 2, 8):
        in_turn = generate(policy, Histories.of(histories), k, 2, temperature)
        for row, history in enumerate(histories):
            alone = generate(policy, Histories.of([history]), k, 2, temperature)
            assert torch.equal(alone.items[0], in_turn.items[row])
            torch.testing.assert_close(alone.log_probs[0], in_turn.log_probs[row], atol=1e-5, rtol=0)


def test_a_list_that_is_guessed_and_checked_may_take_all_items_that_are_left(make_policy: MakePolicy) -> None:
    policy = make_policy(n_items=9, history_length=4, slate_length=8)
    allowed = np.array([True] * 6 + [False] * 3)
    assert sorted(generate(policy, Histories.of([[2]]), 5, allowed=allowed).items.flatten().tolist()) == [1, 3, 4, 5, 6]


def passes_of(policy: GPTRec, history: list[int], k: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Write a list that is guessed and return how many tokens were run in each pass."""
    n_tokens, append = [], Branches.append
    with monkeypatch.context() as patches:
        patches.setattr(Branches, "append", lambda *args: n_tokens.append(args[1].shape[1]) or append(*args))
        generate(policy, Histories.of([history]), k)
    return n_tokens


def test_a_list_that_is_guessed_right_is_written_in_one_pass(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(n_items=60, history_length=40, slate_length=8)
    right = generate(policy, Histories.of([[3, 4, 5], [3, 4, 5]]), 8).items[0, 0].tolist()

    def guess(_: Guesser, known: list[int], *__: object) -> Tree:
        tree = Tree(known[-1])
        for parent, item in enumerate(right[len(known) : -1]):
            tree.add(parent, item - 1)
        return tree

    monkeypatch.setattr(Guesser, "guess", guess)
    assert passes_of(policy, [3, 4, 5], 8, monkeypatch) == [7]


def test_wrong_guesses_cost_a_pass_an_item_and_no_more(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(n_items=60, history_length=40, slate_length=8)
    monkeypatch.setattr(Guesser, "guess", lambda _, known, *__: Tree(known[-1]))
    assert passes_of(policy, [3, 4, 5], 8, monkeypatch) == [1] * 7


def test_where_the_list_is_the_top_k_few_passes_are_enough(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(n_items=60, history_length=40, slate_length=8)
    with torch.no_grad():  # no token sees another, and no position counts: each choice is the separator's
        for name, weights in policy.named_parameters():
            if "attn.c_proj" in name or "mlp.c_proj" in name or name.endswith("wpe.weight"):
                weights.zero_()
        policy.transformer.get_parameter("wte.weight")[1:61] = policy.transformer.get_parameter("wte.weight")[61]
        policy.transformer.get_parameter("wte.weight")[1:61] *= torch.linspace(2, 1, 60)[:, None]
    assert generate(policy, Histories.of([[3, 4, 5]]), 8).items.flatten().tolist() == [1, 2, 6, 7, 8, 9, 10, 11]
    assert len(passes_of(policy, [3, 4, 5], 8, monkeypatch)) <= 3


def test_bf16_stays_near_the_log_probabilities_of_fp32(make_policy: MakePolicy) -> None:
    policy, histories = make_policy(), Histories.of(HISTORIES)
    written = generate(policy, histories, 3, 8, 1.0, torch.Generator().manual_seed(3), precision="bf16")
    with torch.no_grad():
        logits = policy.slate_logits(histories, written.items)
    may = torch.from_numpy(candidates(histories, 12, 3, None))
    exact = slate_log_probs(logits, may, written.items).gather(-1, written.items[..., None] - 1).squeeze(-1)
    assert written.log_probs.dtype == torch.float32
    assert 0 < (written.log_probs - exact).abs().mean() < 0.05  # bf16 has 8 bits; logits reach about 10


def test_a_list_that_is_guessed_in_bf16_has_nearly_the_log_probabilities_of_fp32(make_policy: MakePolicy) -> None:
    policy, may = make_policy(), torch.ones(1, 12, dtype=torch.bool)
    written = generate(policy, Histories.of([[]]), 3, precision="bf16")
    with torch.no_grad():
        logits = policy.slate_logits(Histories.of([[]]), written.items)
    exact = slate_log_probs(logits, may, written.items).gather(-1, written.items[..., None] - 1).squeeze(-1)
    assert 0 < (written.log_probs - exact).abs().mean() < 0.05


def test_a_writer_can_be_asked_again(make_policy: MakePolicy) -> None:
    writer, histories = Writer(make_policy()), Histories.of(HISTORIES)
    first, _, again = (writer.write(histories, k, n_lists) for k, n_lists in ((3, 1), (2, 8), (3, 1)))
    assert torch.equal(first.items, again.items)
    assert torch.equal(first.log_probs, again.log_probs)


@given(data=st.data())
def test_no_list_holds_a_repeated_seen_forbidden_or_special_item(data: st.DataObject, make_policy: MakePolicy) -> None:
    n_items = data.draw(st.integers(4, 9), label="n_items")
    history_of = st.lists(st.integers(1, n_items), max_size=n_items - 1, unique=True)
    histories = data.draw(st.lists(history_of, min_size=1, max_size=4), label="histories")
    forbidden = data.draw(st.sets(st.integers(1, n_items), max_size=2), label="forbidden")
    allowed = np.array([item not in forbidden for item in range(1, n_items + 1)])
    left = [set(range(1, n_items + 1)) - set(history) - forbidden for history in histories]
    most = min(map(len, left))
    k = data.draw(st.sampled_from([1, (most + 1) // 2, most]) if most else st.just(1), label="k")
    policy = make_policy(n_items, history_length=3, slate_length=9)
    generator = data.draw(st.sampled_from([None, torch.Generator().manual_seed(0)]), label="generator")
    if not most:
        with pytest.raises(InputError, match="K = 1"):
            generate(policy, Histories.of(histories), k, 2, allowed=allowed)
        return
    written = generate(policy, Histories.of(histories), k, 2, 1.0, generator, allowed)
    for lists, open_items in zip(written.items.tolist(), left, strict=True):
        for items in lists:
            assert len(set(items)) == k
            assert set(items) <= open_items
    assert torch.isfinite(written.log_probs).all()


def test_a_list_may_hold_all_that_is_left_and_its_last_item_is_certain(make_policy: MakePolicy) -> None:
    policy = make_policy(n_items=5)
    written = generate(policy, Histories.of([[2, 4]]), 3, 8, generator=torch.Generator().manual_seed(0))
    assert all(sorted(items) == [1, 3, 5] for items in written.items[0].tolist())
    assert written.log_probs[:, :, -1].abs().max() == 0.0


def test_equal_logits_go_to_the_smaller_id_and_are_equally_likely(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with torch.no_grad():
        for weights in policy.parameters():
            weights.zero_()
    written = generate(policy, Histories.of([[1, 3], []]), 3)
    assert written.items.tolist() == [[[2, 4, 5]], [[1, 2, 3]]]
    # 12 items, 2 of them seen: one of 10, of 9, of 8.
    assert written.log_probs[0, 0].exp().tolist() == pytest.approx([1 / 10, 1 / 9, 1 / 8])
    assert TopK(policy).recommend([[1, 3]], 3).items.tolist() == [[2, 4, 5]]


def test_more_than_the_model_was_trained_for_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(InputError, match=r"K = 4 is longer than the lists of 3 items"):
        generate(make_policy(), Histories.of([[1]]), 4)


def test_more_than_is_left_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(InputError, match=r"K = 3 items can.t be made for history 1, which leaves 2 of 5"):
        generate(make_policy(n_items=5), Histories.of([[], [1, 2, 3]]), 3)


def test_next_k_keeps_the_order_of_its_histories_across_parts(
    make_policy: MakePolicy, cut_into: Callable[..., None]
) -> None:
    policy = make_policy()
    histories = [HISTORIES[place] for place in (4, 0, 3, 1, 2)]
    allowed = OF_EACH[::-1]
    cut_into(tokens_per_part=1)  # four histories, and the last
    slates = NextK(policy, "fp32").recommend(histories, 3, allowed)
    assert (slates.items.dtype, slates.scores.dtype) == (np.int64, np.float32)
    for row, history in enumerate(histories):
        alone = generate(policy, Histories.of([history]), 3, allowed=allowed[row])
        assert slates.items[row].tolist() == alone.items[0, 0].tolist()
        np.testing.assert_allclose(slates.scores[row], alone.log_probs[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("k", "n_lists", "temperature"),
    [(0, 1, 1.0), (-1, 1, 1.0), (3, 0, 1.0), (3, 1, 0.0), (3, 1, -1.0), (3, 1, float("nan"))],
)
@pytest.mark.parametrize("sampled", [True, False])
def test_lists_of_nothing_are_refused(
    sampled: bool, k: int, n_lists: int, temperature: float, make_policy: MakePolicy
) -> None:
    generator = torch.Generator() if sampled else None
    with pytest.raises(InputError, match=f"K = {k}, {n_lists} lists a history and temperature {temperature:g} don't"):
        generate(make_policy(), Histories.of(HISTORIES), k, n_lists, temperature, generator)


def test_no_histories_have_no_lists(make_policy: MakePolicy) -> None:
    policy = make_policy()
    for generator in (None, torch.Generator()):
        written = generate(policy, Histories.of([]), 3, 2, generator=generator)
        assert written.items.shape == written.log_probs.shape == (0, 2, 3)
    slates = NextK(policy).recommend([], 3)
    assert slates.items.shape == slates.scores.shape == (0, 3)
