"""Evaluation of a scripted recommender on a world small enough to compute by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gptrec_rl import metrics, recommender
from gptrec_rl.data import Cases, Catalogue, Histories, Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable, count_invalid, evaluate
from gptrec_rl.models.markov import PopularityRecommender
from gptrec_rl.recommender import HistoriesLike, Slates
from gptrec_rl.reporting.table_files import write_per_user


class Scripted:
    """Recommends the lists it was given, in the order of the users asked for."""

    def __init__(self, lists: list[list[int]]) -> None:
        self._lists = np.array(lists)
        self._done = 0

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        start, self._done = self._done, self._done + len(Histories.of(histories))
        items = self._lists[start : self._done]
        return Slates(items, np.zeros(items.shape, np.float32))


def make_split(genres: np.ndarray) -> Split:
    names = np.array(["a", "b", "c", "d", "e"])
    catalogue = Catalogue(names, names, ("comedy", "drama"), genres)
    users = np.array(["u", "v", "w"])
    histories = Histories.of([[1, 2, 3], [1, 2, 4], [1, 5, 2]])
    return Split(Interactions(catalogue, users, histories, "tiny"), np.array([0]))


@pytest.fixture
def split() -> Split:
    """Training keeps u: 1; v: 1 2; w: 1 5, so the frequencies are 3/5, 1/5, 0, 0, 1/5."""
    return make_split(np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], dtype=bool))


LISTS = [[3, 4], [5, 4], [3, 4]]  # the test items are 3, 4 and 2: ranks 1, 2 and absent


def table(split: Split, lists: list[list[int]] = LISTS, name: str = "scripted") -> EvaluationTable:
    return evaluate(Scripted(lists), split.test, split, name=name, k=2)


def test_per_user_values_by_hand(split: Split) -> None:
    per_user = table(split).per_user
    assert list(per_user) == [*(known.name for known in metrics.metrics_at(2)), "MIUF@2", "Tail@2"]
    assert per_user["Recall@1"].tolist() == [1, 0, 0]
    assert per_user["Recall@2"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(per_user["NDCG@2"], [1, 0.6309298, 0], atol=1e-7)  # 1/log2(2), 1/log2(3)
    np.testing.assert_allclose(per_user["ILD@2"], [0.5, 0.5, 0.5])  # a comedy and a drama: 1 / (2 * 1)
    np.testing.assert_allclose(per_user["PCOUNT@2"], [0, 0.2, 0])  # item 5 has 1/5, items 3 and 4 nothing
    # Popularity recommends u (1 2 seen): 5 3, v (1 2): 5 3, w (1 5): 2 3, so 0.2 each.
    np.testing.assert_allclose(per_user["nPCOUNT@2"], [0, 1, 0])
    # One of three users has item 5; items 3 and 4 have none and count as if one had: -log2(1/3) for all.
    np.testing.assert_allclose(per_user["MIUF@2"], [np.log2(3)] * 3)
    # Item 1 has 3 of 5 interactions, item 2 brings them to 4 of 5: these two are the head.
    assert per_user["Tail@2"].tolist() == [1, 1, 1]


def test_metrics_of_all_lists_together_by_hand(split: Split) -> None:
    # Items 3, 4 and 5 of five are recommended 2, 3 and 1 times: 0, 0, 1, 2, 3 with weights -4, -2, 0, 2, 4.
    assert table(split).overall == {"Coverage@2": pytest.approx(3 / 5), "Gini@2": pytest.approx(16 / (5 * 6))}


def test_ranks_give_ndcg_at_every_cutoff(split: Split) -> None:
    result = table(split)
    assert result.ranks.tolist() == [1, 2, 0]
    for k in (1, 2):
        expected = metrics.ndcg(np.array(LISTS), split.test.ground_truth, k)
        np.testing.assert_array_equal(metrics.ndcg_of_ranks(result.ranks, k), expected)


def test_a_user_who_had_an_item_twice_counts_once(split: Split) -> None:
    interactions = replace(split.interactions, histories=Histories.of([[1, 1, 1, 3], [1, 2, 4], [1, 5, 2]]))
    twice = table(Split(interactions, split.validation_users)).per_user
    np.testing.assert_allclose(twice["MIUF@2"], [np.log2(3)] * 3)
    known = table(Split(interactions, split.validation_users), [[2, 4], [1, 5], [1, 2]]).per_user["MIUF@2"]
    np.testing.assert_allclose(known, [np.log2(3), np.log2(3) / 2, np.log2(3) / 2])  # all three users have item 1


def test_summary_and_standard_errors_by_hand(split: Split) -> None:
    result = table(split)
    assert result.summary()["Recall@2"] == pytest.approx(2 / 3)
    # 1, 1, 0: squares of the distances to 2/3 sum to 1/9 + 1/9 + 4/9 = 2/3; over n - 1 = 2: 1/3; root of (1/3) / 3
    assert result.standard_errors()["Recall@2"] == pytest.approx(1 / 3)
    assert list(result.summary()) == list(result.standard_errors()) == [*result.per_user, *result.overall]
    assert np.isnan(result.standard_errors()["Gini@2"])
    assert result.summary()["Coverage@2"] == result.overall["Coverage@2"]
    assert all(type(value) is float for value in result.summary().values())


def test_popularity_itself_has_npcount_one(split: Split) -> None:
    summary = evaluate(PopularityRecommender(split), split.test, split, name="popularity", k=2).summary()
    assert summary["nPCOUNT@2"] == pytest.approx(1.0)
    assert summary["PCOUNT@2"] == pytest.approx(0.2)


def test_batches_change_nothing_and_report_progress(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "MOST_USERS", 2)
    seen: list[tuple[int, int]] = []
    batched = evaluate(
        Scripted(LISTS),
        split.test,
        split,
        name="scripted",
        k=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 3), (3, 3)]
    for name, values in table(split).per_user.items():
        np.testing.assert_array_equal(batched.per_user[name], values)


def test_validation_cases_are_the_validation_users(split: Split) -> None:
    result = evaluate(Scripted([[2, 3]]), split.validation, split, name="scripted", k=2)
    assert result.user_ids.tolist() == ["u"]
    assert result.summary()["Recall@1"] == 1.0  # u's second-last item is 2
    assert np.isnan(result.standard_errors()["Recall@1"])  # one user has no spread


def test_seen_and_repeated_items_are_counted_once_each(split: Split) -> None:
    assert table(split).n_invalid == 0
    # u has seen 1 and 2; v gets 5 twice, of which the second is a repeat; w has seen 1, which also repeats
    assert table(split, [[1, 2], [5, 5], [1, 1]]).n_invalid == 2 + 1 + 2


def test_invalid_items_are_counted_against_the_whole_history(monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.array([[4, 5, 4], [1, 2, 3]])
    histories = Histories.of([[], [3, 3, 3, 3]])
    assert count_invalid(items, histories, n_items=5) == 2
    monkeypatch.setattr(recommender, "MOST_USERS", 1)
    assert count_invalid(items, histories, n_items=5) == 2


@pytest.mark.parametrize("outside", [0, 6, -1])
def test_items_outside_the_catalogue_are_refused(split: Split, outside: int) -> None:
    with pytest.raises(InputError, match=f"scripted recommended item {outside}, and item numbers go from 1 to 5"):
        table(split, [[3, 4], [5, outside], [3, 4]])


def test_lists_of_another_length_are_refused(split: Split) -> None:
    with pytest.raises(InputError, match=r"shape \(3, 3\) where \(3, 2\) were asked for"):
        table(split, [[3, 4, 5]] * 3)


def test_k_larger_than_what_is_left_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match="K = 4"):
        evaluate(PopularityRecommender(split), split.test, split, name="popularity", k=4)


def test_no_users_are_refused(split: Split) -> None:
    nobody = Cases(np.zeros(0, np.int64), Histories.of([]), np.zeros(0, np.int64))
    with pytest.raises(InputError, match="no user to measure popularity on"):
        evaluate(PopularityRecommender(split), nobody, split, name="popularity", k=2)


def test_without_genres_only_ild_is_undefined() -> None:
    summary = table(make_split(np.zeros((5, 2), dtype=bool))).summary()
    assert {name for name, value in summary.items() if np.isnan(value)} == {"ILD@2"}


def test_differences_are_paired(split: Split) -> None:
    difference = table(split).difference(table(split, [[4, 3], [4, 5], [4, 3]], name="turned"))["NDCG@2"]
    # ours 1, 0.63093, 0; theirs 0.63093, 1, 0; differences 0.36907, -0.36907, 0: mean 0,
    # variance 2 * 0.36907^2 / 2, so the standard error is 0.36907 / sqrt(3) = 0.21308
    assert difference.mean == pytest.approx(0.0, abs=1e-9)
    assert difference.standard_error == pytest.approx(0.2130827, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"split_hash": "other"}, "split_hash"),
        ({"k": 3}, "k is 2 and 3"),
        ({"user_ids": np.array(list("vuw"))}, "users"),
    ],
)
def test_tables_that_do_not_compare_are_refused(split: Split, change: dict[str, object], what: str) -> None:
    ours = table(split)
    with pytest.raises(InputError, match=what):
        ours.difference(replace(ours, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(("suffix", "read"), [(".csv", pd.read_csv), (".parquet", pd.read_parquet)])
def test_the_per_user_file_holds_external_ids_and_values(split: Split, tmp_path: Path, suffix: str, read) -> None:
    path = tmp_path / "new" / f"users{suffix}"
    write_per_user(table(split), path)
    frame = read(path)
    assert frame["user"].tolist() == ["u", "v", "w"]
    np.testing.assert_allclose(frame["NDCG@2"], [1, 0.6309298, 0], atol=1e-7)
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_a_per_user_file_of_another_kind_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix '.json'; name it .csv or .parquet"):
        write_per_user(table(split), tmp_path / "users.json")
    assert list(tmp_path.iterdir()) == []
