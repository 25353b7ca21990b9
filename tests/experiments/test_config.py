"""Sets of experiments as files: what is wrong in one is named, with the file that it is in."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from gptrec_rl.config import PAPER, TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.errors import InputError
from gptrec_rl.experiments.sets import lineage, read_set
from gptrec_rl.experiments.study import Study

SHIPPED = sorted(file.parent for file in (Path(__file__).parents[2] / "experiments").glob("*/dataset.toml"))

MMR = {"base": "sasrec", "method": "mmr", "scaling": "raw", "weights": [0.5], "goals": ["ndcg=1"]}


def write(folder: Path, row_id: str, **row: object) -> None:
    (folder / f"{row_id}.toml").write_text(tomli_w.dumps({"name": row_id, "type": "any", "place": 9, **row}))


def test_rows_stand_in_their_places_and_know_what_was_published(tiny: Path) -> None:
    write(tiny, "first", place=-1, built_in={"model": "markov"}, published="student")
    experiments = read_set(tiny, "cpu")
    assert list(experiments.rows) == ["first", "popularity", "sasrec", "student", "diverse", "mmr"]
    assert {row: found.values for row, found in experiments.published.items()} == {"first": {"NDCG@3": 0.3}}


def test_a_budget_wins_over_settings_key_by_key(tiny: Path) -> None:
    settings = {"loss": "softmax", "model": {"width": 8, "n_layers": 1}}
    budgets = {"cpu": {"max_minutes": 3, "model": {"width": 16}}, "paper": {}}
    write(tiny, "own", train={"model": "sasrec"}, settings=settings, budgets=budgets)
    row = read_set(tiny, "cpu").rows["own"]
    assert row.settings_of("cpu") == {"loss": "softmax", "max_minutes": 3, "model": {"width": 16, "n_layers": 1}}
    assert row.settings_of("paper") == settings


def test_lineage_names_what_comes_first(tiny: Path) -> None:
    write(tiny, "second", pretrain={"teacher": "sasrec", "start": "student"}, budgets={"cpu": {}})
    experiments = read_set(tiny, "cpu")
    assert lineage(experiments, "diverse") == ["sasrec", "student", "diverse"]
    assert lineage(experiments, "second") == ["sasrec", "student", "second"]
    assert lineage(experiments, "popularity") == ["popularity"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nam": "x", "built_in": {"model": "markov"}}, "there is no setting nam; did you mean name?"),
        ({}, "bad.toml: a row has exactly one of the tables"),
        ({"built_in": {"model": "markov"}, "train": {"model": "sasrec"}}, "a row has exactly one of the tables"),
        ({"train": {"model": "sasrec"}}, "bad.toml: a row that is trained needs a budget"),
        ({"built_in": {"model": "markow"}}, "built_in.model = 'markow'"),
        ({"built_in": {"model": "markov"}, "published": "sasrek"}, "published = 'sasrek' is not in"),
        ({"tune": {"student": "studnet", "goal": "ndcg=1"}, "budgets": {"cpu": {"steps": 1}}}, "no row 'studnet' in"),
        ({"tune": {"student": "studnet", "goal": "ndcg=1"}, "budgets": {"cpu": {"steps": 1}}}, "did you mean student?"),
        ({"tune": {"student": "STUDENT", "goal": "ndcg=1"}, "budgets": {"cpu": {"steps": 1}}}, "did you mean student?"),
        (
            {"tune": {"student": "student", "goal": "ndcg=1"}, "budgets": {"cpu": {}}},
            "budgets.cpu has neither steps nor",
        ),
        ({"pretrain": {"teacher": "bad"}, "budgets": {"cpu": {}}}, "in a circle: bad -> bad"),
        ({"train": {"model": "sasrek"}, "budgets": {"cpu": {}}}, "train.model = 'sasrek'"),
        ({"train": {"model": "bpr"}, "budgets": {"cpu": {"dropout": 0}}}, "budget cpu: there is no setting dropout"),
        ({"pretrain": {"teacher": "sasrec"}, "budgets": {"cpu": {"batch_size": 0}}}, "batch_size = 0"),
        ({"pretrain": {"teacher": "mmr"}, "budgets": {"cpu": {}}}, "builds on mmr, which is not a model's row"),
        (
            {"tune": {"student": "sasrec", "goal": "ndcg=1"}, "budgets": {"cpu": {"steps": 1}}},
            "which is not a GPTRec's row",
        ),
        ({"tune": {"student": "student", "goal": "ncdg=1"}, "budgets": {"cpu": {"steps": 1}}}, "did you mean 'ndcg'?"),
        ({"rerank": {**MMR, "weights": [0.5, -0.5]}}, "rerank.weights"),
        ({"rerank": {**MMR, "weights": [float("nan")]}}, "rerank.weights"),
        ({"rerank": {**MMR, "goals": ["calibration=1"]}}, "has a reward that no metric of the table measures"),
    ],
)
def test_what_is_wrong_in_a_row_is_named(row: dict[str, object], message: str, tiny: Path) -> None:
    write(tiny, "bad", **row)
    with pytest.raises(InputError) as raised:
        read_set(tiny, "cpu")
    assert message in str(raised.value)
    assert "bad.toml" in str(raised.value)


def test_a_circle_of_rows_is_shown(tiny: Path) -> None:
    for row_id, teacher in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tiny, row_id, pretrain={"teacher": teacher}, budgets={"cpu": {}})
    with pytest.raises(InputError, match="a -> b -> c -> a"):
        read_set(tiny, "cpu")


def test_two_rows_of_one_name_are_refused(tiny: Path) -> None:
    write(tiny, "own", name="The sasrec", built_in={"model": "markov"})
    with pytest.raises(InputError, match="own and sasrec are both called 'The sasrec'"):
        read_set(tiny, "cpu")


def test_a_source_that_is_not_named_is_refused(tiny: Path) -> None:
    file = tiny.parent / "published.toml"
    file.write_text(file.read_text().replace('"other"', '"nobody"'))
    with pytest.raises(InputError, match=r"tiny\.student has source 'nobody'"):
        read_set(tiny, "cpu")


def test_a_folder_without_a_data_set_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no dataset\.toml"):
        read_set(tmp_path, "cpu")


def test_a_path_that_is_no_set_is_answered_with_one_that_is(tiny: Path, tmp_path: Path) -> None:
    for path, remedy in (
        (tiny / "student", r"did you mean its row .*tiny/student\.toml\?"),
        (tiny.parent, r"it holds tiny; give one of them, such as .*/tiny"),
        (tiny / "nowhere", "it isn't there; give a folder such as experiments/ml1m"),
    ):
        with pytest.raises(InputError, match=remedy):
            read_set(path, "cpu")


def test_a_set_without_rows_is_refused(tiny: Path) -> None:
    for file in tiny.glob("[!d]*.toml"):
        file.unlink()
    (tiny / "diverse.toml").unlink()
    with pytest.raises(InputError, match="has no row"):
        read_set(tiny, "cpu")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_rows_fit_together_and_their_settings_are_right(folder: Path) -> None:
    experiments = read_set(folder, "cpu")
    assert experiments.dataset.baseline in experiments.rows


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_paper_s_budget_of_tuned_rows_is_that_of_tune(folder: Path) -> None:
    rows = [row for row in read_set(folder, "paper").rows.values() if row.tune is not None]
    assert len(rows) >= 5
    for row in rows:
        assert read_config(TuneConfig, None, base=row.settings_of("paper")) == TuneConfig.model_validate(PAPER)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_row_can_be_made_under_the_paper_s_budget(folder: Path) -> None:
    study = Study(read_set(folder, "paper"), "paper", results=Path("nowhere"))
    rows = study.experiments.rows
    assert {row_id for row_id, _ in study.jobs(None, None, with_dependencies=True)} == set(rows)


def test_published_tuned_rows_start_under_the_paper_s_budget_where_the_paper_s_did() -> None:
    folder = next(folder for folder in SHIPPED if folder.name == "ml1m")
    cpu, paper = read_set(folder, "cpu"), read_set(folder, "paper")
    published = [row_id for row_id, row in cpu.rows.items() if row.tune is not None and row.published]
    assert len(published) == 5
    for row_id in published:
        assert cpu.rows[row_id].needs == ("gptrec-supervised-sasrec",)
        assert paper.rows[row_id].needs == ("gptrec-supervised-markov",)


def test_a_budget_names_another_student(tiny: Path) -> None:
    write(tiny, "other", pretrain={"teacher": "markov"}, budgets={"cpu": {}})
    budgets = {"cpu": {"steps": 5}, "paper": {"student": "other", "steps": 7}}
    write(tiny, "own", tune={"student": "student", "goal": "ndcg=1"}, budgets=budgets)
    rows = {budget: read_set(tiny, budget).rows["own"] for budget in ("cpu", "paper")}
    assert {budget: row.needs for budget, row in rows.items()} == {"cpu": ("student",), "paper": ("other",)}
    assert [row.settings_of(budget) for budget, row in rows.items()] == [{"steps": 5}, {"steps": 7}]


@pytest.mark.parametrize(
    ("how", "student", "message"),
    [
        ({"tune": {"student": "student", "goal": "ndcg=1"}}, "nobody", "no row 'nobody'"),
        ({"tune": {"student": "student", "goal": "ndcg=1"}}, 5, "budgets.paper.student = 5 is not the name of a row"),
        ({"tune": {"student": "student", "goal": "ndcg=1"}}, "sasrec", "which is not a GPTRec's row"),
        ({"pretrain": {"teacher": "sasrec"}}, "student", "there is no setting student"),
    ],
)
def test_a_wrong_student_of_another_budget_is_named(
    how: dict[str, object], student: object, message: str, tiny: Path
) -> None:
    write(tiny, "bad", **how, budgets={"paper": {"student": student, **({"steps": 1} if "tune" in how else {})}})
    with pytest.raises(InputError, match=message) as raised:
        read_set(tiny, "cpu")
    assert "bad.toml" in str(raised.value)


def test_all_sets_are_shipped() -> None:
    assert [folder.name for folder in SHIPPED] == ["ml1m", "steam2m", "synthetic"]
