from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.data import Histories, Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.errors import InputError
from gptrec_rl.models.markov import MarkovChain, PopularityRecommender
from gptrec_rl.recommender import ScoringRecommender, candidates, top_k


@st.composite
def ranking_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Few distinct scores, so that most of them tie."""
    n_rows, n_items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    k = draw(st.integers(1, n_items))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    scores = random.integers(-2, 3, size=(n_rows, n_items)).astype(np.float32)
    may = np.ones((n_rows, n_items), dtype=bool)
    for row in may:
        row[random.permutation(n_items)[: random.integers(0, n_items - k + 1)]] = False
    return scores, may, k


@given(ranking_cases())
def test_top_k_is_what_sorting_by_score_and_id_gives(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    scores, may, k = case
    slates = top_k(scores, may, k)
    for row, row_may, items, item_scores in zip(scores, may, slates.items, slates.scores, strict=True):
        oracle = sorted((-score, item) for item, score in enumerate(row, start=1) if row_may[item - 1])[:k]
        assert items.tolist() == [item for _, item in oracle]
        assert item_scores.tolist() == [-negative for negative, _ in oracle]
    assert (slates.items.dtype, slates.scores.dtype) == (np.int64, np.float32)


def test_equal_scores_go_to_the_smaller_id() -> None:
    slates = top_k(np.array([[1, 3, 1, 3, 1]], np.float32), np.array([[True, True, True, True, True]]), 3)
    assert slates.items.tolist() == [[2, 4, 1]]


def test_a_score_of_minus_infinity_is_no_reason_to_recommend_what_may_not_be() -> None:
    slates = top_k(np.array([[5, -np.inf, -np.inf, 1]], np.float32), np.array([[False, True, True, True]]), 2)
    assert slates.items.tolist() == [[4, 2]]


def test_candidates_are_allowed_and_not_in_the_history() -> None:
    histories = Histories.of([[1, 2], []])
    assert candidates(histories, 4, 2, None).tolist() == [[False, False, True, True], [True] * 4]
    everybody = np.array([True, False, True, True])
    assert candidates(histories, 4, 2, everybody).tolist() == [[False, False, True, True], everybody.tolist()]
    each = np.array([[True, True, True, True], [False, False, True, True]])
    assert candidates(histories, 4, 2, each).tolist() == [[False, False, True, True], each[1].tolist()]


def test_a_history_that_leaves_fewer_than_k_is_named() -> None:
    with pytest.raises(InputError, match=r"K = 3 .* history 1, which leaves 2 of 4 items"):
        candidates(Histories.of([[], [3, 4]]), 4, 3, None)


def test_allowed_items_count_towards_what_is_left() -> None:
    with pytest.raises(InputError, match=r"K = 1 .* history 0, which leaves 0 of 2 items"):
        candidates(Histories.of([[1]]), 2, 1, np.array([True, False]))


def test_no_histories_have_no_candidates() -> None:
    assert candidates(Histories.of([]), 3, 2, None).shape == (0, 3)


@pytest.mark.parametrize("history", [[0, 0, 5], ["3", "5"], [1.9, 5.2], [-1, 5], [41], [2**31 + 5]])
@pytest.mark.parametrize("model", [MarkovChain, PopularityRecommender])
def test_what_is_no_item_of_the_catalogue_is_refused(
    model: Callable[[Split], ScoringRecommender], history: Sequence[Any]
) -> None:
    recommender = model(Split.of(generate(30, 40, 8.0, 3)))
    for ask in (recommender.score, lambda histories: recommender.recommend(histories, 5)):
        with pytest.raises(InputError, match=r"no item number|no history"):
            ask([[1, 2], history])


@pytest.mark.parametrize("allowed", [np.ones(4, bool), np.ones((3, 5), bool), np.ones(5), np.arange(1, 6)])
def test_allowed_items_are_a_truth_value_an_item(allowed: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"allowed is .*; give bool of shape \(5,\) or \(2, 5\)"):
        candidates(Histories.of([[1], [2]]), 5, 1, allowed)
    assert candidates(Histories.of([[1], [2]]), 5, 1, np.arange(5) > 0).sum() == 7  # 4 and 3 of items 2 to 5


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("allowed", [None, [True, False, True, True] * 8])
def test_the_most_popular_items_are_those_of_a_ranking_of_all(k: int, allowed: list[bool] | None) -> None:
    histories = [[8, 1, 3, 2], [1], [5, 6, 7, 8]]
    split = Split.of(generate(30, 32, 8.0, 3))
    popularity = PopularityRecommender(split)
    may = None if allowed is None else np.array(allowed)
    slates = popularity.recommend(histories, k, may)
    expected = top_k(popularity.score(histories), candidates(Histories.of(histories), 32, k, may), k)
    np.testing.assert_array_equal(slates.items, expected.items)
    np.testing.assert_array_equal(slates.scores, expected.scores)
    with pytest.raises(InputError, match=r"history 0, which leaves \d of 32"):
        popularity.recommend([list(range(1, 32)), []], 3, may)
