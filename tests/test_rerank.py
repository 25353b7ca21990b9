"""Rerankers against brute force in plain Python, at their ends, and where values tie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gptrec_rl.metrics import discounts, ild
from gptrec_rl.rerank import Candidates, greedy_ild, greedy_pcount, min_max, mmr, softmax

N_ITEMS, N_GENRES = 12, 4


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of two 0/1 vectors, 0 where one is empty."""
    n = one.sum() * other.sum()
    return float((one & other).sum() / np.sqrt(n)) if n else 0.0


def mmr_by_loops(items: list[int], scores: list[float], genres: np.ndarray, weight: float, k: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < k:
        best, best_value = 0, -np.inf
        for item, score in zip(items, scores, strict=True):
            if item not in chosen:
                alike = max((similarity(genres[item - 1], genres[other - 1]) for other in chosen), default=0.0)
                value = weight * score - (1 - weight) * alike
                if value > best_value:
                    best, best_value = item, value
        chosen.append(best)
    return chosen


def pcount_by_loops(items: list[int], scores: list[float], popularity: np.ndarray, weight: float, k: int) -> list[int]:
    values = {i: weight * s - (1 - weight) * popularity[i - 1] for i, s in zip(items, scores, strict=True)}
    return sorted(items, key=lambda item: -values[item])[:k]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Candidates, np.ndarray, np.ndarray]:
    """Draw candidates of unequal number (at least 3), genres and popularities; few distinct values, so many ties."""

    def array(values: list[float] | list[bool], *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))).reshape(shape)

    n_rows = draw(st.integers(1, 3))
    scores = array([-2.0, -0.5, 0.0, 0.25, 1.0], n_rows, N_ITEMS).astype(np.float32)
    may = array([False, True], n_rows, N_ITEMS)
    may[:, draw(st.integers(0, N_ITEMS - 3)) :][:, :3] = True
    candidates = Candidates.best(scores, may, draw(st.integers(3, N_ITEMS + 1)))
    return candidates, array([False, True], N_ITEMS, N_GENRES), array([0.0, 0.5, 1.0], N_ITEMS)


def rows_of(candidates: Candidates) -> list[tuple[list[int], list[float]]]:
    """Return items and scores of each row without what is missing."""
    return [
        (items[real].tolist(), scores[real].tolist())
        for items, scores, real in zip(candidates.items, candidates.scores, candidates.is_real, strict=True)
    ]


WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(worlds(), WEIGHTS, st.integers(1, 3))
def test_mmr_agrees_with_loops(world: tuple[Candidates, np.ndarray, np.ndarray], weight: float, k: int) -> None:
    candidates, genres, _ = world
    expected = [mmr_by_loops(items, scores, genres, weight, k) for items, scores in rows_of(candidates)]
    items, values = mmr(candidates, genres, weight, k)
    assert items.tolist() == expected
    assert (np.diff(values, axis=1) <= 0).all()


@given(worlds(), WEIGHTS, st.integers(1, 3))
def test_greedy_pcount_agrees_with_loops(
    world: tuple[Candidates, np.ndarray, np.ndarray], weight: float, k: int
) -> None:
    candidates, _, popularity = world
    expected = [pcount_by_loops(items, scores, popularity, weight, k) for items, scores in rows_of(candidates)]
    items, values = greedy_pcount(candidates, popularity, weight, k)
    assert items.tolist() == expected
    assert (np.diff(values, axis=1) <= 0).all()


@given(worlds(), st.integers(1, 3))
def test_weight_one_is_the_base_ranking(world: tuple[Candidates, np.ndarray, np.ndarray], k: int) -> None:
    candidates, genres, popularity = world
    for scaled in (candidates, min_max(candidates), softmax(candidates)):
        assert mmr(scaled, genres, 1.0, k)[0].tolist() == candidates.items[:, :k].tolist()
        assert greedy_pcount(scaled, popularity, 1.0, k)[0].tolist() == candidates.items[:, :k].tolist()


def test_mmr_by_hand() -> None:
    genres = np.array([[1, 0], [1, 0], [1, 1], [0, 1]], dtype=bool)
    candidates = Candidates(np.array([[2, 1, 3, 4]]), np.array([[1.0, 0.9, 0.7, 0.2]]))
    # Half and half: item 2 at 0.5. Then 1: 0.45 - 0.5 = -0.05; 3: 0.35 - 0.5 / sqrt(2) = -0.0036; 4: 0.1 - 0 = 0.1.
    # Then 1: -0.05 as before; 3 is as like to 4 as to 2.
    items, values = mmr(candidates, genres, 0.5, 4)
    assert items.tolist() == [[2, 4, 3, 1]]
    np.testing.assert_allclose(values, [[0.5, 0.1, 0.35 - 0.5**1.5, -0.05]])


def test_mmr_at_weight_zero_starts_with_the_best_and_looks_at_genres_alone() -> None:
    genres = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2]]
    candidates = Candidates(np.array([[3, 2, 1, 5, 4]]), np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]))
    assert mmr(candidates, genres, 0.0, 4)[0].tolist() == [[3, 5, 4, 2]]  # among equals the better scored one


def test_greedy_pcount_at_weight_zero_is_popularity_upside_down() -> None:
    popularity = np.array([0.1, 0.4, 0.2, 0.3, 0.0])
    candidates = Candidates(
        np.array([[2, 4, 1, 3], [5, 4, 2, 0]]), np.array([[4.0, 3.0, 2.0, 1.0], [3.0, 2.0, 1.0, 9.0]])
    )
    assert greedy_pcount(candidates, popularity, 0.0, 3)[0].tolist() == [[1, 3, 4], [5, 4, 2]]


@given(worlds(), st.sampled_from([0.2, 0.4, 0.8, 1.5]))
def test_the_fair_pcount_is_score_less_w_times_popularity(
    world: tuple[Candidates, np.ndarray, np.ndarray], w: float
) -> None:
    scaled, popularity = min_max(world[0]), world[2]
    _, values = greedy_pcount(scaled, popularity, 1 / (1 + w), 3)
    for row, (items, scores) in enumerate(rows_of(scaled)):
        best = sorted((s - w * popularity[i - 1] for i, s in zip(items, scores, strict=True)), reverse=True)[:3]
        np.testing.assert_allclose(values[row] * (1 + w), best, atol=1e-12)


def test_min_max_goes_from_one_to_zero_over_what_is_there() -> None:
    candidates = Candidates(
        np.array([[3, 1, 2], [1, 2, 0], [2, 3, 1]]), np.array([[5, 2, 1], [4, 3, -9], [2, 2, 2]], dtype=np.float32)
    )
    scaled = min_max(candidates)
    assert np.shares_memory(scaled.items, candidates.items)
    assert [scores for _, scores in rows_of(scaled)] == [[1.0, 0.25, 0.0], [1.0, 0.0], [0.0, 0.0, 0.0]]


def test_the_best_candidates_are_in_order_and_filled_up_with_zeros() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0]], dtype=np.float32)
    may = np.array([[True, True, True, True], [False, True, False, True]])
    best = Candidates.best(scores, may, 3)
    assert best.items.tolist() == [[2, 3, 4], [2, 4, 0]]  # equal scores: the smaller id
    assert best.scores[0].tolist() == [3.0, 3.0, 2.0]
    assert Candidates.best(scores, may, 9).items.tolist() == [[2, 3, 4, 1], [2, 4, 0, 0]]


def test_a_tie_for_the_last_places_goes_to_the_smaller_ids() -> None:
    scores = np.array([[1.0, 2.0, 1.0, 5.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]], dtype=np.float32)
    may = np.array([[False, True, True, True, True, True], [True, False, True, False, True, True]])
    best = Candidates.best(scores, may, 4)
    assert best.items.tolist() == [[4, 2, 3, 5], [1, 3, 5, 6]]
    assert Candidates.best(scores, may, 3).items.tolist() == [[4, 2, 3], [1, 3, 5]]


@given(st.data())
def test_the_best_candidates_are_those_of_sorting_everything(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 3)), N_ITEMS
    scores = data.draw(npst.arrays(np.float32, shape, elements=st.sampled_from([-2.0, 0.0, 0.25, 1.0])))
    may = data.draw(npst.arrays(np.bool_, shape))
    n = data.draw(st.integers(1, N_ITEMS + 1))
    for row, items in enumerate(Candidates.best(scores, may, n).items):
        expected = sorted(np.flatnonzero(may[row]), key=lambda place: (-scores[row, place], place))[:n]
        assert items[items > 0].tolist() == [place + 1 for place in expected]
        assert (items[len(expected) :] == 0).all()


def test_no_rows_make_no_lists() -> None:
    nobody = Candidates.best(np.zeros((0, 4), np.float32), np.zeros((0, 4), bool), 3)
    assert mmr(min_max(nobody), np.ones((4, 2), bool), 0.5, 2)[0].shape == (0, 2)
    assert greedy_pcount(nobody, np.ones(4), 0.5, 2)[0].shape == (0, 2)


@pytest.mark.crosscheck
def test_mmr_agrees_with_pyversity() -> None:
    pyversity = pytest.importorskip("pyversity", minversion="0.2")  # earlier, 1 meant no diversity
    rng = np.random.default_rng(0)
    genres = rng.random((40, 6)) < 0.4
    genres[:, 0] |= ~genres.any(axis=1)
    scores = rng.random((1, 40)).astype(np.float32)
    candidates = Candidates.best(scores, np.ones((1, 40), bool), 40)
    for weight in (0.2, 0.5, 0.8):
        theirs = pyversity.mmr(genres.astype(np.float32), scores[0], k=10, diversity=1 - weight)
        assert mmr(candidates, genres, weight, 10)[0][0].tolist() == (theirs.indices + 1).tolist()


@given(worlds(), WEIGHTS, st.sampled_from([min_max, softmax]))
def test_greedy_ild_takes_what_adds_most_to_the_goal(
    world: tuple[Candidates, np.ndarray, np.ndarray], weight: float, scaling: Callable[[Candidates], Candidates]
) -> None:
    candidates, genres = scaling(world[0]), world[1]
    lists, values = greedy_ild(candidates, genres, weight, 3)
    for row, (items, scores) in enumerate(rows_of(candidates)):
        for place in range(3):
            before = lists[row, :place].tolist()
            gains = {
                item: weight * score / np.log2(place + 2)
                + (1 - weight) * sum(1 - similarity(genres[item - 1], genres[other - 1]) for other in before) / 6
                for item, score in zip(items, scores, strict=True)
                if item not in before
            }
            assert values[row, place] == pytest.approx(gains[lists[row, place]], abs=1e-9)
            assert values[row, place] == pytest.approx(max(gains.values()), abs=1e-9)


def test_the_gains_of_greedy_ild_add_up_to_the_goal() -> None:
    rng = np.random.default_rng(0)
    genres = rng.random((30, 5)) < 0.4
    genres[:, 0] = True
    among = softmax(Candidates.best(rng.normal(size=(4, 30)).astype(np.float32), np.ones((4, 30), bool), 30))
    items, values = greedy_ild(among, genres, 0.5, 10)
    shares = np.zeros((4, 31))
    np.put_along_axis(shares, among.items, among.scores, axis=1)
    expected_ndcg = (np.take_along_axis(shares, items, axis=1) * discounts(10)).sum(axis=1)
    np.testing.assert_allclose(2 * values.sum(axis=1), expected_ndcg + ild(items, genres, 10))


def test_softmax_scores_are_shares_of_what_is_there() -> None:
    candidates = Candidates(np.array([[3, 1, 2], [1, 2, 0]]), np.array([[2, 1, 0], [4, 4, 9]], dtype=np.float32))
    scaled = softmax(candidates)
    total = np.exp([2.0, 1.0, 0.0]).sum()
    np.testing.assert_allclose(scaled.scores, [np.exp([2.0, 1.0, 0.0]) / total, [0.5, 0.5, 0.0]])
