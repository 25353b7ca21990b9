"""Results on disk: they come back as they were, and half of one is never taken for a whole."""

from __future__ import annotations

import numpy as np
import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.results import read_tables
from gptrec_rl.experiments.study import Study


def test_tables_come_back(study: Study, make_up) -> None:
    written = make_up("sasrec")
    result = study.result("sasrec", 0)
    assert result is not None
    read = read_tables(study.result_file("sasrec", 0), result, "any")
    assert list(read) == list(written) == ["top-k", "next-k"]
    for point, table in written.items():
        back = read[point]
        np.testing.assert_array_equal(back.user_ids, table.user_ids)
        np.testing.assert_array_equal(back.ranks, table.ranks)
        assert set(back.per_user) == set(table.per_user)
        for name, values in table.per_user.items():
            np.testing.assert_allclose(back.per_user[name], values, rtol=1e-6)
        assert back.overall == table.overall
        assert (back.k, back.split_hash) == (table.k, table.split_hash)


def test_a_curve_keeps_all_means_and_the_users_of_its_best_point(study: Study, make_up) -> None:
    written = make_up("mmr")
    result = study.result("mmr", 0)
    assert result is not None
    assert [point.weight for point in result.points.values()] == [0.0, 0.5, 1.0]
    assert result.points["1"].means["NDCG@3"] == pytest.approx(written["1"].summary()["NDCG@3"])
    assert list(read_tables(study.result_file("mmr", 0), result, "any")) == ["0.5"]


def test_undefined_means_are_left_out(study: Study, make_up) -> None:
    from gptrec_rl.experiments.results import point_of

    table: EvaluationTable = make_up("popularity")["top-k"]
    table.per_user["ILD@3"][0] = np.nan
    point = point_of(table)
    assert "ILD@3" not in point.means
    assert "Coverage@3" in point.means
    assert "Coverage@3" not in point.standard_errors


def test_there_may_be_no_result(study: Study) -> None:
    assert study.result("popularity", 0) is None
    assert not study.is_made("popularity", 0)


def test_a_result_of_another_row_is_refused(study: Study, make_up) -> None:
    make_up("popularity")
    for suffix in (".json", ".parquet"):
        source = study.result_file("popularity", 0).with_suffix(suffix)
        source.rename(study.result_file("sasrec", 0).with_suffix(suffix))
    with pytest.raises(InputError, match=r"sasrec\.json is the result of row popularity, budget cpu, seed 0; run `"):
        study.made()
    assert not study.is_made("sasrec", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda facts, values: values.unlink(), r"popularity\.parquet is missing; run `gptrec-rl experiment run"),
        (lambda facts, values: values.write_bytes(b"other"), "belongs to another result"),
        (lambda facts, values: facts.write_bytes(facts.read_bytes()[:200]), "is no whole result"),
        (lambda facts, values: facts.write_text(facts.read_text().replace('"users"', '"user"')), "is no whole result"),
    ],
)
def test_a_half_written_result_is_an_error_with_the_remedy(damage, message: str, study: Study, make_up) -> None:
    make_up("popularity")
    facts = study.result_file("popularity", 0)
    damage(facts, facts.with_suffix(".parquet"))
    with pytest.raises(InputError, match=message) as raised:
        study.made()
    assert study.command("popularity", 0) in str(raised.value)
    assert not study.is_made("popularity", 0)


def test_an_interrupted_write_leaves_no_result(study: Study, make_up, monkeypatch: pytest.MonkeyPatch) -> None:
    make_up("popularity")
    monkeypatch.setattr("gptrec_rl.experiments.results.Result.model_dump_json", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_up("popularity", seed=0, hit_prob=0.9)
    assert study.result("popularity", 0) is None  # not the old facts beside the new values
