"""Top-K: one pass, best scores first; for K = 1 it is Next-K."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptrec_rl.decoding.next_k import NextK
from gptrec_rl.decoding.top_k import TopK
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
ALL = np.ones(12, dtype=bool)


def test_lists_rank_a_plain_gpt2s_first_choices(
    make_policy: Callable[..., GPTRec], plain_log_probs: Callable[..., torch.Tensor]
) -> None:
    policy = make_policy()
    slates = TopK(policy, "fp32").recommend(HISTORIES, 4)  # scores need no place of their own: K may exceed the model's
    for row, history in enumerate(HISTORIES):
        expected = plain_log_probs(policy, history, [], ALL).numpy()
        best = np.argsort(-expected, kind="stable")[:4]
        assert slates.items[row].tolist() == (best + 1).tolist()
        # Log-probabilities are scores less a constant.
        np.testing.assert_allclose(np.diff(slates.scores[row]), np.diff(expected[best]), atol=1e-4)


def test_matrices_are_laid_out_once(make_policy: Callable[..., GPTRec], monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = TopK(make_policy(), "fp32")
    monkeypatch.setattr(GPTRec, "backbone", lambda *_: pytest.fail("the engine is made when the recommender is"))
    assert recommender.score(HISTORIES).shape == (5, 12)


@pytest.mark.parametrize("strategy", [TopK, NextK])
def test_a_model_in_training_recommends_without_dropout(
    strategy: type[TopK] | type[NextK], make_policy: Callable[..., GPTRec]
) -> None:
    policy = make_policy(dropout=0.5)
    expected = strategy(policy, "fp32").recommend(HISTORIES, 3)
    slates = strategy(policy.train(), "fp32").recommend(HISTORIES, 3)
    np.testing.assert_array_equal(slates.items, expected.items)
    np.testing.assert_allclose(slates.scores, expected.scores, atol=1e-5)


def test_scores_keep_the_order_of_their_histories_across_parts(
    make_policy: Callable[..., GPTRec], cut_into: Callable[..., None]
) -> None:
    recommender = TopK(make_policy(), "fp32")
    histories = [HISTORIES[place] for place in (4, 0, 3, 1, 2)]
    cut_into(tokens_per_part=1)  # four histories, and the last
    scores = recommender.score(histories)
    assert (scores.shape, scores.dtype) == ((5, 12), np.float32)
    for row, history in enumerate(histories):
        np.testing.assert_allclose(scores[row], recommender.score([history])[0], atol=1e-5)


def test_scores_are_computed_a_bounded_number_at_a_time(
    make_policy: Callable[..., GPTRec], monkeypatch: pytest.MonkeyPatch, cut_into: Callable[..., None]
) -> None:
    policy, n_rows, lay_out = make_policy(), [], GPTRec.lay_out
    expected = TopK(policy, "fp32").score(HISTORIES)
    cut_into(scores_per_part=30)  # of 12 items
    monkeypatch.setattr(GPTRec, "lay_out", lambda self, rows: n_rows.append(len(rows)) or lay_out(self, rows))
    np.testing.assert_allclose(TopK(policy, "fp32").score(HISTORIES), expected, atol=1e-5)
    assert n_rows == [2, 2, 1]


def test_next_k_and_top_k_agree_for_one_item(make_policy: Callable[..., GPTRec]) -> None:
    for seed in range(5):
        policy = make_policy(seed=seed)
        next_one, top_one = NextK(policy).recommend(HISTORIES, 1), TopK(policy).recommend(HISTORIES, 1)
        assert np.array_equal(next_one.items, top_one.items)


def test_forbidden_items_are_left_out(make_policy: Callable[..., GPTRec]) -> None:
    recommender = TopK(make_policy())
    unbounded = recommender.recommend([[4]], 3).items[0]
    allowed = ~np.isin(np.arange(1, 13), unbounded[:1])
    assert recommender.recommend([[4]], 2, allowed).items[0].tolist() == unbounded[1:].tolist()


def test_more_than_is_left_is_refused(make_policy: Callable[..., GPTRec]) -> None:
    with pytest.raises(InputError, match="leaves 2 of 5"):
        TopK(make_policy(n_items=5)).recommend([[1, 2, 3]], 3)


def test_no_histories_have_no_lists(make_policy: Callable[..., GPTRec]) -> None:
    recommender = TopK(make_policy())
    assert recommender.score([]).shape == (0, 12)
    slates = recommender.recommend([], 3)
    assert slates.items.shape == slates.scores.shape == (0, 3)
