"""Tests of significance against arithmetic by hand, scipy, and the traps that others have fallen into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.significance import compare


def make_table(name: str, **per_user: np.ndarray | list[float]) -> EvaluationTable:
    """Return a table of metrics at 10, given as NDCG=[...]."""
    values = {f"{metric}@10": np.array(row, dtype=np.float64) for metric, row in per_user.items()}
    n_users = len(next(iter(values.values())))
    users = np.array([str(user) for user in range(n_users)])
    return EvaluationTable(name, 10, "split", users, values, np.zeros(n_users, np.int64), overall={}, n_invalid=0)


def test_one_test_by_hand() -> None:
    ours, theirs = make_table("ours", NDCG=[0.5, 0.75, 1.0]), make_table("theirs", NDCG=[0.25, 0.25, 0.25])
    (comparison,) = compare([ours], theirs, ["NDCG@10"])
    # Differences 0.25, 0.5, 0.75: mean 0.5, standard deviation 0.25, error 0.25 / sqrt(3) = 0.144338, so t = 3.464102
    # with 2 degrees of freedom, where the two-sided p is 1 - t / sqrt(t^2 + 2) and 97.5 % lie below 4.302653.
    assert (comparison.model, comparison.baseline, comparison.metric) == ("ours", "theirs", "NDCG@10")
    assert comparison.difference == pytest.approx(0.5)
    assert comparison.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert comparison.low == pytest.approx(0.5 - 4.302653 * 0.144338, abs=1e-5)
    assert comparison.high == pytest.approx(0.5 + 4.302653 * 0.144338, abs=1e-5)


def test_tests_are_scipys_times_their_number() -> None:
    rng = np.random.default_rng(0)
    baseline = make_table("base", NDCG=rng.random(50), ILD=rng.random(50))
    noise = [rng.normal(0.02, 0.1, (2, 50)) for _ in range(3)]
    tables = [
        make_table(
            f"m{i}", NDCG=baseline.per_user["NDCG@10"] + noise[i][0], ILD=baseline.per_user["ILD@10"] + noise[i][1]
        )
        for i in range(3)
    ]
    comparisons = compare(tables, baseline, ["NDCG@10", "ILD@10"])
    assert [(c.model, c.metric) for c in comparisons] == [(t.name, m) for t in tables for m in ("NDCG@10", "ILD@10")]
    for comparison, table in zip(comparisons, np.repeat(np.array(tables, dtype=object), 2), strict=True):
        plain = stats.ttest_rel(table.per_user[comparison.metric], baseline.per_user[comparison.metric])
        assert comparison.n_tests == 6
        assert comparison.p == pytest.approx(min(1.0, 6 * plain.pvalue))
        assert comparison.low < comparison.difference < comparison.high
    assert any(c.p == 1.0 for c in comparisons)
    assert any(c.p < 1.0 for c in comparisons)


def test_tests_are_paired() -> None:
    spread = np.linspace(0, 1, 40)
    ours = make_table("ours", NDCG=spread + 0.01 + 0.001 * (np.arange(40) % 2))
    theirs = make_table("theirs", NDCG=spread)
    assert stats.ttest_ind(ours.per_user["NDCG@10"], theirs.per_user["NDCG@10"]).pvalue > 0.5
    assert compare([ours], theirs, ["NDCG@10"])[0].verdict == "better"


@pytest.mark.parametrize(
    ("metric", "sign", "verdict"),
    [
        ("NDCG", 1, "better"),
        ("NDCG", -1, "worse"),
        ("nPCOUNT", 1, "worse"),  # less is better
        ("nPCOUNT", -1, "better"),
        ("MIUF", 1, "better"),
    ],
)
def test_each_metric_has_its_own_direction(metric: str, sign: int, verdict: str) -> None:
    base = np.random.default_rng(1).random(30)
    moved = base + sign * (0.1 + 0.01 * np.random.default_rng(2).random(30))
    (comparison,) = compare([make_table("m", **{metric: moved})], make_table("b", **{metric: base}), [f"{metric}@10"])
    assert comparison.verdict == verdict


def test_correction_takes_a_verdict_back() -> None:
    theirs = make_table("theirs", NDCG=[0.0] * 4)
    ours = make_table("ours", NDCG=[0.1, 0.2, 0.3, 0.2])  # t = 0.2 / (0.0816 / 2) = 4.899, p = 0.0163
    assert compare([ours], theirs, ["NDCG@10"])[0].verdict == "better"
    corrected = compare([ours] * 4, theirs, ["NDCG@10"])[0]  # 4 * 0.0163 > 0.05
    assert corrected.p == pytest.approx(0.0651, abs=1e-4)
    assert corrected.verdict is None


def test_equal_models_do_not_differ() -> None:
    table = make_table("base", NDCG=[0.0, 0.5, 1.0])
    (comparison,) = compare([replace(table, name="copy")], table, ["NDCG@10"])
    assert (comparison.difference, comparison.low, comparison.high, comparison.p) == (0.0, 0.0, 0.0, 1.0)
    assert comparison.verdict is None


def test_an_undefined_metric_is_no_test() -> None:
    ours = make_table("ours", NDCG=[0.5, 0.75, 1.0], ILD=[0.1, np.nan, 0.2])
    theirs = make_table("theirs", NDCG=[0.25, 0.25, 0.25], ILD=[0.1, 0.1, 0.1])
    (comparison,) = compare([ours], theirs, ["NDCG@10", "ILD@10"])
    assert (comparison.metric, comparison.n_tests) == ("NDCG@10", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": np.array(["1", "0", "2"])}, "different users"),
        ({"split_hash": "another"}, "split_hash is another and split"),
        ({"k": 5}, "k is 5 and 10"),
    ],
)
def test_tables_that_do_not_compare_are_refused(change: dict[str, object], message: str) -> None:
    table = make_table("base", NDCG=[0.0, 0.5, 1.0])
    with pytest.raises(InputError, match=message):
        compare([replace(table, **change)], table, ["NDCG@10"])  # type: ignore[arg-type]


def test_one_user_is_refused() -> None:
    table = make_table("base", NDCG=[1.0])
    with pytest.raises(InputError, match="1 user shows no spread to test base by"):
        compare([table], table, ["NDCG@10"])
