"""Metrics against hand-computed values, brute force, scipy, ir-measures, RecTools and RecBole."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from gptrec_rl import metrics
from gptrec_rl.errors import InputError

# Items 1..4: comedy; comedy and drama; drama; war.
GENRES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)


@pytest.fixture(scope="module")
def lists() -> tuple[np.ndarray, np.ndarray]:
    """Return 300 random lists of 10 out of 30 items, and an item for each, [300, 10] and [300]."""
    generator = np.random.default_rng(3)
    items = np.array([generator.permutation(30)[:10] + 1 for _ in range(300)])
    return items, generator.integers(1, 31, 300)


def test_recall_counts_only_the_first_k() -> None:
    items = np.array([[5, 2, 7], [5, 2, 7], [5, 2, 7]])
    found = metrics.recall(items, np.array([5, 7, 9]), k=2)
    assert found.tolist() == [1.0, 0.0, 0.0]  # rank 1; rank 3 > 2; absent
    assert found.dtype == np.float64


def test_ndcg_is_one_over_the_log_of_rank_plus_one() -> None:
    items = np.array([[5, 2, 7]] * 4)
    # rank 1: 1/log2(2) = 1; rank 2: 1/log2(3) = 0.63093; rank 3: 1/log2(4) = 0.5; absent: 0
    np.testing.assert_allclose(metrics.ndcg(items, np.array([5, 2, 7, 9]), k=3), [1.0, 0.6309298, 0.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(metrics.ndcg(items, np.array([5, 2, 7, 9]), k=2), [1.0, 0.6309298, 0.0, 0.0], atol=1e-7)


def test_ild_divides_the_pairs_by_k_times_k_minus_one() -> None:
    items = np.array([[1, 2, 3], [1, 3, 4], [1, 1, 1]])
    # 1-2 and 2-3: cosine 1/sqrt(2), so 1 - 0.70711 = 0.29289; 1-3: 1. (0.29289 + 0.29289 + 1) / (3 * 2) = 0.26430
    # no two share a genre: 3 / 6 = 0.5; all alike: 0
    np.testing.assert_allclose(metrics.ild(items, GENRES, k=3), [0.2642977, 0.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(metrics.ild(items, GENRES, k=2), [0.1464466, 0.5, 0.0], atol=1e-7)  # 0.29289 / 2


def test_ild_of_fewer_than_two_items_is_zero() -> None:
    assert metrics.ild(np.array([[1], [2]]), GENRES, k=10).tolist() == [0.0, 0.0]
    assert metrics.ild(np.array([[1, 3]]), GENRES, k=1).tolist() == [0.0]


def test_ild_is_undefined_only_for_lists_with_an_item_without_genres() -> None:
    genres = np.array([[True, False], [False, True], [False, False]])
    values = metrics.ild(np.array([[1, 2], [1, 3]]), genres, k=2)
    assert values[0] == 0.5
    assert np.isnan(values[1])
    assert np.isnan(metrics.ild(np.array([[1, 2]]), np.zeros((3, 0), dtype=bool), k=2)).all()


def test_pcount_is_a_sum_over_places_not_a_mean() -> None:
    frequencies = np.array([0.5, 0.3, 0.15, 0.05])
    items = np.array([[1, 2, 3], [4, 3, 2]])
    # 0.5 + 0.3 + 0.15; 0.05 + 0.15 + 0.3; for k = 2 without the last
    np.testing.assert_allclose(metrics.pcount(items, frequencies, k=3), [0.95, 0.5])
    np.testing.assert_allclose(metrics.pcount(items, frequencies, k=2), [0.8, 0.2])


def test_npcount_divides_by_the_mean_of_the_popularity_model() -> None:
    # the mean of 0.2 and 0.6 is 0.4
    np.testing.assert_allclose(metrics.npcount(np.array([0.1, 0.4]), np.array([0.2, 0.6])), [0.25, 1.0])


def test_npcount_of_the_popularity_model_has_mean_one() -> None:
    pcounts = np.array([0.03, 0.08, 0.07])
    assert metrics.npcount(pcounts, pcounts).mean() == pytest.approx(1.0)


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=2, max_size=12), st.integers(2, 12)
)
def test_ild_agrees_with_scipy_for_any_genres(genres: list[list[bool]], k: int) -> None:
    matrix = np.array(genres)
    items = np.arange(1, len(matrix) + 1)[None]
    n = min(k, len(matrix))
    value = metrics.ild(items, matrix, k)[0]
    assert value == pytest.approx(pdist(matrix[:n].astype(float), "cosine").sum() / (n * (n - 1)), abs=1e-9)
    assert 0.0 <= value <= 0.5 + 1e-12


@given(st.permutations(range(1, 5)), st.integers(1, 4), st.integers(1, 5))
def test_metrics_agree_with_loops(order: list[int], k: int, target: int) -> None:
    frequencies = np.array([0.4, 0.3, 0.2, 0.1])
    items = np.array([order])
    rank = order.index(target) + 1 if target in order else np.inf
    pairs = list(itertools.combinations(order[:k], 2))
    directions = GENRES / np.linalg.norm(GENRES, axis=1, keepdims=True)
    distances = sum(1 - directions[i - 1] @ directions[j - 1] for i, j in pairs)
    assert metrics.recall(items, np.array([target]), k)[0] == (rank <= k)
    assert metrics.ndcg(items, np.array([target]), k)[0] == pytest.approx((rank <= k) / np.log2(rank + 1))
    assert metrics.ild(items, GENRES, k)[0] == pytest.approx(distances / max(k * (k - 1), 1))
    assert metrics.pcount(items, frequencies, k)[0] == pytest.approx(sum(frequencies[i - 1] for i in order[:k]))


@pytest.mark.crosscheck
def test_recall_and_ndcg_agree_with_ir_measures(lists: tuple[np.ndarray, np.ndarray]) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    items, targets = lists
    relevant = {str(user): {str(target): 1} for user, target in enumerate(targets)}
    run = {str(user): {str(item): -float(rank) for rank, item in enumerate(row)} for user, row in enumerate(items)}
    for name, ours in (
        ("R@1", metrics.recall(items, targets, 1)),
        ("R@10", metrics.recall(items, targets, 10)),
        ("nDCG@10", metrics.ndcg(items, targets, 10)),
        ("nDCG@3", metrics.ndcg(items, targets, 3)),
    ):
        measure = ir_measures.parse_measure(name)
        theirs = {result.query_id: result.value for result in ir_measures.iter_calc([measure], relevant, run)}
        np.testing.assert_allclose(ours, [theirs[str(user)] for user in range(len(items))], atol=1e-6)


def test_metrics_declare_their_names_and_directions() -> None:
    assert [(known.name, known.arrow) for known in metrics.METRICS] == [
        ("Recall@1", "↑"),
        ("Recall@10", "↑"),
        ("NDCG@10", "↑"),
        ("ILD@10", "↑"),
        ("PCOUNT@10", "↓"),
        ("nPCOUNT@10", "↓"),
    ]


def test_lists_of_one_item_have_one_recall() -> None:
    assert [known.name for known in metrics.metrics_at(1)] == ["Recall@1", "NDCG@1", "ILD@1", "PCOUNT@1", "nPCOUNT@1"]


def test_what_the_paper_does_not_have_declares_its_direction() -> None:
    names = [(known.name, known.arrow) for known in metrics.BEYOND]
    assert names == [("MIUF@10", "↑"), ("Tail@10", "↑"), ("Coverage@10", "↑"), ("Gini@10", "↓")]


@given(st.permutations(range(1, 7)), st.integers(1, 7))
def test_ndcg_at_any_cutoff_follows_from_the_rank(order: list[int], target: int) -> None:
    items, targets = np.array([order]), np.array([target])  # item 7 is never in the list
    ranks = metrics.ranks(items, targets)
    assert ranks.tolist() == [order.index(target) + 1 if target in order else 0]
    for k in range(1, 7):
        assert metrics.ndcg_of_ranks(ranks, k).tolist() == metrics.ndcg(items, targets, k).tolist()


def test_miuf_by_hand() -> None:
    users = np.array([8, 4, 1, 0])  # of 8: novelties 0, 1 and 3, and 3 for an item of nobody
    items = np.array([[1, 2, 3], [4, 3, 1]])
    np.testing.assert_allclose(metrics.miuf(items, users, 8, k=3), [4 / 3, 2.0])
    np.testing.assert_allclose(metrics.miuf(items, users, 8, k=2), [0.5, 3.0])


def test_tail_counts_only_the_first_k() -> None:
    in_head = np.array([True, False, True])
    items = np.array([[1, 2, 3], [2, 1, 3]])
    np.testing.assert_allclose(metrics.tail(items, in_head, k=3), [1 / 3, 1 / 3])
    assert metrics.tail(items, in_head, k=1).tolist() == [0.0, 1.0]


def test_the_short_head_holds_the_item_that_reaches_the_share() -> None:
    # 40 + 30 are 70 % of 100, and 15 more are beyond 80 %; of the two with 15, the smaller id.
    assert metrics.short_head(np.array([15, 40, 15, 30, 0])).tolist() == [True, True, False, True, False]
    assert metrics.short_head(np.array([50, 30, 20])).tolist() == [True, True, False]  # exactly 80 %: no more
    assert metrics.short_head(np.array([5, 5]), share=1.0).tolist() == [True, True]


def test_coverage_and_gini_count_only_the_first_k() -> None:
    items = np.array([[1, 2], [1, 3]])
    assert (metrics.coverage(items, 4, k=2), metrics.coverage(items, 4, k=1)) == (0.75, 0.25)
    assert (metrics.gini(items, 4, k=2), metrics.gini(items, 4, k=1)) == (0.375, 0.75)


def test_gini_has_zero_and_one_less_a_share_for_ends() -> None:
    assert metrics.gini(np.array([[1, 2], [3, 4]]), 4, k=2) == 0.0
    assert metrics.gini(np.array([[3], [3], [3]]), 4, k=1) == 1 - 1 / 4


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(recommended: list[int]) -> None:
    counts = np.bincount(recommended, minlength=7)[1:]
    expected = np.abs(counts[:, None] - counts).sum() / (2 * 6**2 * counts.mean())
    assert metrics.gini(np.array(recommended)[:, None], 6, k=1) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module", params=["3", "5"])
def oracle(request: pytest.FixtureRequest) -> tuple[int, dict[str, Any], metrics.Lists]:
    """K, what other libraries say of lists cut there, and the lists."""
    oracles = json.loads((Path(__file__).parent / "oracles/metrics.json").read_text())
    users_of_item = np.bincount(np.array(oracles["training"])[:, 1], minlength=oracles["n_items"] + 1)[1:]
    items = np.array(oracles["lists"])
    lists = metrics.Lists(
        items=items,
        ground_truth=items[:, 0],
        popular=items,
        genres=np.zeros((oracles["n_items"], 1), dtype=bool),
        frequencies=users_of_item / users_of_item.sum(),
        n_users_of_item=users_of_item,
        n_users=len({user for user, _ in oracles["training"]}),
    )
    return int(request.param), oracles["at"][request.param], lists


@pytest.mark.crosscheck
def test_popularity_novelty_and_coverage_are_rectools(oracle: tuple[int, dict[str, Any], metrics.Lists]) -> None:
    k, values, lists = oracle
    of = {name: definition.measure(lists, k) for name, definition in metrics.DEFINITIONS.items()}
    np.testing.assert_allclose(of["MIUF"], values["rectools"]["MeanInvUserFreq"])
    np.testing.assert_allclose(of["PCOUNT"], k * np.array(values["rectools"]["AvgRecPopularity"]))  # a sum, not a mean
    assert of["Coverage"] == pytest.approx(values["rectools"]["CatalogCoverage"])


@pytest.mark.crosscheck
def test_popularity_tail_coverage_and_gini_are_recboles(oracle: tuple[int, dict[str, Any], metrics.Lists]) -> None:
    k, values, lists = oracle
    of = {name: np.mean(definition.measure(lists, k)) for name, definition in metrics.DEFINITIONS.items()}
    counts = k * values["recbole"]["AveragePopularity"]  # of interactions, where ours are shares
    assert of["PCOUNT"] == pytest.approx(counts / lists.n_users_of_item.sum())
    assert of["Tail"] == pytest.approx(values["recbole"]["TailPercentage"])  # with the short head's threshold
    assert of["Coverage"] == pytest.approx(values["recbole"]["ItemCoverage"])
    assert of["Gini"] == pytest.approx(values["recbole"]["GiniIndex"])


@pytest.mark.parametrize("item", [0, -1, 5])
def test_a_metric_refuses_what_is_no_item(item: int) -> None:
    items = np.array([[1, item]])
    shares = np.full(4, 0.25)
    for measure in (
        lambda: metrics.ild(items, GENRES, 2),
        lambda: metrics.pcount(items, shares, 2),
        lambda: metrics.miuf(items, np.ones(4, int), 4, 2),
        lambda: metrics.tail(items, np.ones(4, bool), 2),
        lambda: metrics.coverage(items, 4, 2),
        lambda: metrics.gini(items, 4, 2),
    ):
        with pytest.raises(InputError, match=f"^{item} is no item number.*1 to 4$"):
            measure()
