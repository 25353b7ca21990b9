"""Rewards of Table 1 by hand, against the metrics that they must sum to, and calibration against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from gptrec_rl import metrics, rewards
from gptrec_rl.data import Catalogue, Histories

# Items 1..4: comedy; comedy and drama; drama; war.
CATALOGUE = Catalogue(
    item_ids=np.array(["a", "b", "c", "d"]),
    titles=np.array(["a", "b", "c", "d"]),
    genre_names=("comedy", "drama", "war"),
    genres=np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool),
)
FREQUENCIES = np.array([0.4, 0.3, 0.2, 0.1])
EMPTY = Histories.of([[]])


def test_ndcg_reward_stands_at_the_ground_truth() -> None:
    slates = np.array([[[1, 2, 3], [3, 1, 2]], [[1, 2, 3], [4, 3, 1]]])
    earned = rewards.ndcg(slates, np.array([3, 2]), Histories.of([[], []]), CATALOGUE)
    # 1 / log2(rank + 1): rank 3: 0.5; rank 1: 1; rank 2: 0.63093; absent: 0
    expected = [[[0, 0, 0.5], [1, 0, 0]], [[0, 0.6309298, 0], [0, 0, 0]]]
    np.testing.assert_allclose(earned, expected, atol=1e-6)
    assert earned.dtype == np.float32


def test_ild_reward_counts_distances_to_earlier_items_only() -> None:
    earned = rewards.ild(np.array([[[1, 2, 4]]]), np.array([1]), EMPTY, CATALOGUE)
    # nothing before item 1; 2 to 1: 1 - 1/sqrt(2) = 0.29289; 4 to 1 and to 2: 1 + 1 = 2; all over 3 * 2
    np.testing.assert_allclose(earned, [[[0, 0.0488155, 0.3333333]]], atol=1e-6)
    assert earned.dtype == np.float32


def test_ild_reward_of_a_list_of_one_is_zero() -> None:
    assert rewards.ild(np.array([[[1]]]), np.array([1]), EMPTY, CATALOGUE).tolist() == [[[0.0]]]


def test_pcount_reward_charges_the_frequency() -> None:
    earned = rewards.PCount(FREQUENCIES)(np.array([[[4, 1]]]), np.array([1]), EMPTY, CATALOGUE)
    np.testing.assert_allclose(earned, [[[-0.1, -0.4]]], atol=1e-7)
    assert earned.dtype == np.float32


@given(st.lists(st.permutations(range(1, 5)), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 4))
def test_rewards_sum_to_metrics(orders: list[list[int]], k: int, target: int) -> None:
    items = np.array(orders)[:, :k]
    truth = np.full(len(items), target)
    slates, histories = items[:, None, :], Histories.of([[]] * len(items))
    pairs = (
        (rewards.ndcg, metrics.ndcg(items, truth, k)),
        (rewards.ild, metrics.ild(items, CATALOGUE.genres, k)),
        (rewards.PCount(FREQUENCIES), -metrics.pcount(items, FREQUENCIES, k)),
    )
    for reward, metric in pairs:
        np.testing.assert_allclose(reward(slates, truth, histories, CATALOGUE).sum(axis=2)[:, 0], metric, atol=1e-6)


def test_calibration_by_hand() -> None:
    histories = Histories.of([[1, 3]])  # half comedy, half drama
    slates = np.array([[[2, 2], [1, 1], [4, 4]]])
    earned = rewards.calibration(slates, np.array([1]), histories, CATALOGUE)
    # item 2 is half comedy, half drama: equal, 1. No genre shared with war: divergence 1 bit, so 0.
    # comedy alone: middle (3/4, 1/4) has entropy 0.811278 bits, minus (0 + 1) / 2 = 0.311278, so 0.688722
    np.testing.assert_allclose(earned, [[1.0, 0.688722, 0.0]], atol=1e-6)
    assert earned.dtype == np.float32


def test_calibration_of_an_empty_history_is_zero() -> None:
    histories = Histories.of([[], [1]])
    earned = rewards.calibration(np.array([[[1, 2]], [[1, 1]]]), np.array([1, 1]), histories, CATALOGUE)
    assert earned[0, 0] == 0.0
    assert earned[1, 0] == pytest.approx(1.0)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8), st.lists(st.integers(1, 4), min_size=3, max_size=3), st.data()
)
def test_calibration_agrees_with_scipy(history: list[int], slate: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(1, 4), max_size=5))
    histories = Histories.of([other, history])  # the one in front must not leak into the one behind
    slates = np.array([[[1, 2, 3]], [slate]])
    votes = CATALOGUE.genres / CATALOGUE.genres.sum(axis=1, keepdims=True)
    liked, listed = (votes[np.array(items) - 1].mean(axis=0) for items in (history, slate))
    expected = 1.0 - jensenshannon(liked, listed, base=2) ** 2
    earned = rewards.calibration(slates, np.array([1, 1]), histories, CATALOGUE)
    assert earned[1, 0] == pytest.approx(expected, abs=1e-6)


def test_a_reward_of_whole_lists_goes_on_the_last_place() -> None:
    placed = rewards.place_on_last(np.array([[0.25, 0.5]]), 3)
    assert placed.tolist() == [[[0, 0, 0.25], [0, 0, 0.5]]]
    assert placed.dtype == np.float32
