"""What results say together: seeds are averaged user by user, and others are tested against the baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.goal_values import goal_value, measured_goal
from gptrec_rl.experiments.sets import read_set
from gptrec_rl.experiments.study import Study
from gptrec_rl.experiments.trade_offs import GOAL, contests


def test_rows_without_a_result_have_a_line_without_a_table(study: Study) -> None:
    evidence = Evidence.of(study)
    assert [line.row_id for line in evidence.lines] == ["popularity", "sasrec", "student", "diverse"]
    assert [curve.row_id for curve in evidence.curves] == ["mmr"]
    assert evidence.run == []
    assert evidence.curves[0].points == []
    assert evidence.baseline is None


def test_without_the_baseline_nothing_is_tested(study: Study, make_up) -> None:
    make_up("popularity")
    make_up("student")
    assert [dict(line.comparisons) for line in Evidence.of(study).run] == [{}, {}]


def test_tests_are_of_the_row_s_own_strategy_against_the_baseline_and_count_each_other(study: Study, make_up) -> None:
    baseline = make_up("sasrec", hit_prob=0.1)["top-k"]
    popularity = make_up("popularity", hit_prob=0.9)["top-k"]
    student = make_up("student", seed=0)["next-k"]
    evidence = Evidence.of(study)
    assert evidence.baseline is not None
    assert evidence.baseline.row_id == "sasrec"
    assert evidence.baseline.comparisons == {}
    test = evidence.lines[0].comparisons["NDCG@3"]
    values = popularity.per_user["NDCG@3"], baseline.per_user["NDCG@3"]
    assert test.n_tests == 2 * 5  # two rows, five metrics
    assert test.p == pytest.approx(min(1.0, 10 * stats.ttest_rel(*values).pvalue), rel=1e-3)
    assert test.verdict == "better"
    assert set(evidence.lines[2].comparisons) == {"Recall@1", "Recall@3", "NDCG@3", "ILD@3", "nPCOUNT@3"}
    assert evidence.lines[2].comparisons["ILD@3"].difference == pytest.approx(
        student.per_user["ILD@3"].mean() - baseline.per_user["ILD@3"].mean(), abs=1e-6
    )


def test_seeds_are_averaged_user_by_user(study: Study, make_up) -> None:
    first, second = (make_up("diverse", seed=seed)["next-k"] for seed in (0, 1))
    line = Evidence.of(study).line("diverse")
    assert line is not None
    assert line.table is not None
    expected = (first.per_user["NDCG@3"] + second.per_user["NDCG@3"]) / 2
    np.testing.assert_allclose(line.table.per_user["NDCG@3"], expected, rtol=1e-6)
    assert line.table.overall["Gini@3"] == pytest.approx((first.overall["Gini@3"] + second.overall["Gini@3"]) / 2)
    assert [result.seed for result in line.results] == [0, 1]


def test_a_curve_s_points_are_in_the_order_of_their_weights(study: Study, make_up) -> None:
    make_up("mmr")
    assert [point.weight for point in Evidence.of(study).curves[0].points] == [0.0, 0.5, 1.0]


def test_goal_values_by_hand() -> None:
    means = {"NDCG@3": 0.2, "ILD@3": 0.3, "PCOUNT@3": 0.01}
    assert goal_value("ndcg=1,ild=0.5", means, 3) == pytest.approx(0.35)
    assert goal_value("ndcg=2,pcount=6", means, 3) == pytest.approx(0.4 - 0.06)  # PCOUNT is a cost
    values = {"NDCG@3": np.array([1.0, 0.0]), "ILD@3": np.array([0.1, 0.2])}
    np.testing.assert_allclose(goal_value("ndcg=1,ild=1", values, 3), [1.1, 0.2])


def test_expected_ndcg_is_judged_by_the_ndcg_that_comes_true() -> None:
    assert measured_goal("expected_ndcg=1,ild=0.5") == "ndcg=1,ild=0.5"
    assert measured_goal("ndcg=0.5,expected_ndcg=0.5,ild=1") == "ndcg=1,ild=1"


def test_a_goal_without_a_metric_has_no_contest(tiny: Path, study: Study, make_up) -> None:
    file = tiny / "diverse.toml"
    file.write_text(file.read_text().replace("ild=1", "my_rewards:new_genres=1"))
    make_up("diverse")
    assert contests(Evidence.of(replace(study, experiments=read_set(tiny, "cpu")))) == []


def test_a_contest_has_the_tuned_model_what_it_came_from_and_the_best_point_of_each_reranker(
    study: Study, make_up
) -> None:
    tables = {row: make_up(row) for row in ("popularity", "sasrec", "student", "diverse", "mmr")}
    contest = contests(Evidence.of(study))[0]
    assert (contest.goal, contest.tuned, contest.student) == ("ndcg=1,ild=1", "The diverse", "The student")
    names = {each.name for each in contest.contenders}
    # The popularity model is neither its ancestor nor what was reranked.
    assert names == {"The sasrec", "The student", "The diverse", "The mmr, weight 0.5"}
    values = [each.values[GOAL] for each in contest.contenders]
    assert values == sorted(values, reverse=True)
    (tuned,) = (each for each in contest.contenders if each.name == contest.tuned)
    means = tables["diverse"]["next-k"].summary()
    assert tuned.values[GOAL] == pytest.approx(means["NDCG@3"] + means["ILD@3"], rel=1e-6)
    assert tuned.comparison is None
    (student,) = (each for each in contest.contenders if each.name == "The student")
    assert student.comparison is not None
    assert student.comparison.difference == pytest.approx(student.values[GOAL] - tuned.values[GOAL])
    assert student.comparison.n_tests == len(contest.contenders) - 1
