"""Every kind of row, every table and every figure from the command line, at tiny size; and what people get wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.kinds import KINDS, trained_kinds

Run = Callable[..., Result]

MODEL = {"width": 8, "n_layers": 1, "n_heads": 1, "history_length": 6}
TRAINING = {"batch_size": 8, "validate_every": 2, "precision": "fp32", "max_steps": 3}
STUDENT = {**TRAINING, "model": {**MODEL, "slate_length": 3}}
TUNING = {
    "steps": 3,
    "precision": "fp32",
    "fleet": {"n_histories": 4, "n_lists": 2, "publish_every": 1, "cache_batches": 2},
}
BOTH = ["top-k", "next-k"]


def trained(model: str) -> dict[str, Any]:
    if "batch_size" not in KINDS[model].config.model_fields:  # factors, which have no sequence to append to
        return {"train": {"model": model}, "strategies": ["top-k"], "budgets": {"cpu": {"max_steps": 3}}}
    return {"train": {"model": model}, "strategies": BOTH, "budgets": {"cpu": {**TRAINING, "model": MODEL}}}


def tuned(goal: str, **more: object) -> dict[str, Any]:
    return {"tune": {"student": "student", "goal": goal, "serial": True}, "budgets": {"cpu": TUNING}, **more}


def reranked(method: str, scaling: str, goal: str) -> dict[str, Any]:
    how = {"base": "sasrec", "method": method, "scaling": scaling, "weights": [0.0, 0.5, 1.0], "goals": [goal]}
    return {"rerank": how}


MMR_TEACHER = {"rerank": {"method": "mmr", "weight": 0.5}}
ROWS: Mapping[str, Mapping[str, Any]] = {
    # What others build on comes last on purpose.
    "diverse": tuned("ndcg=1,ild=1", seeds=[0, 1]),
    "unpopular": tuned("ndcg=1,pcount=3"),
    "expecting": {
        "tune": {"student": "student", "goal": "expected_ndcg=1,ild=1", "reward_model": "sasrec", "serial": True},
        "budgets": {"cpu": TUNING},
    },
    "mmr": reranked("mmr", "raw", "ndcg=1,ild=1"),
    "pcount": reranked("pcount", "min-max", "ndcg=1,pcount=3"),
    "ild": reranked("ild", "softmax", "ndcg=1,ild=1"),
    "taught-by-mmr": {
        "pretrain": {"teacher": "sasrec", "start": "student"},
        "settings": MMR_TEACHER,
        "budgets": {"cpu": STUDENT},
    },
    "student": {"pretrain": {"teacher": "markov"}, "strategies": BOTH[::-1], "budgets": {"cpu": STUDENT}},
    "popularity": {"built_in": {"model": "popularity"}, "strategies": ["top-k"]},
    **{model: trained(model) for model in trained_kinds()},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set with every kind of row and every model that can be trained, in a world of 40 users."""
    root = tmp_path_factory.mktemp("experiments")
    dataset = {
        "title": "Tiny",
        "data": str(root / "tiny.npz"),
        "data_name": "synthetic",
        "baseline": "sasrec",
        "k": 3,
        "synthetic": {"n_users": 40, "n_items": 40, "mean_length": 9.0},
    }
    (root / "tiny").mkdir()
    (root / "tiny" / "dataset.toml").write_text(tomli_w.dumps(dataset))
    for place, (row_id, row) in enumerate(ROWS.items()):
        whole = {"name": row_id, "type": "any", "place": place, **row}
        (root / "tiny" / f"{row_id}.toml").write_text(tomli_w.dumps(whole))
    return root / "tiny"


def experiment(folder: Path, command: str, target: Path, *options: object) -> Result:
    places = ["--results", folder.parent / "results", "--runs", folder.parent / "runs"]
    return CliRunner().invoke(main, [str(word) for word in ["experiment", command, target, *places, *options]])


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """Return the set with one row made alone, then the others."""
    first = experiment(folder, "run", folder / "student.toml")
    assert first.exit_code == 0, first.output
    rest = experiment(folder, "run", folder)
    assert rest.exit_code == 0, rest.output
    assert "student, seed" not in rest.output  # it had a result
    n_rows = len(ROWS) + 1 - 1  # one has two seeds, one was there
    assert f"[{n_rows}/{n_rows}] " in rest.output
    return folder


def result_of(folder: Path, name: str) -> Any:
    return json.loads((folder.parent / "results" / "tiny-cpu" / f"{name}.json").read_text())


def test_every_row_is_made_with_what_it_took(made: Path) -> None:
    for row_id in ROWS:
        result = result_of(made, row_id)
        assert result["users"] == 40
        assert result["budget"] == "cpu"
        assert {"Recall@1", "NDCG@3", "Coverage@3", "MIUF@3"} <= set(next(iter(result["points"].values()))["means"])
    assert list(result_of(made, "sasrec")["points"]) == BOTH
    assert list(result_of(made, "mmr")["points"]) == ["0", "0.5", "1"]
    assert result_of(made, "sasrec")["steps"] == 3
    assert result_of(made, "sasrec")["training_s"] > 0
    assert result_of(made, "sasrec")["settings"]["model"]["width"] == 8
    assert [v["step"] for v in result_of(made, "diverse-seed1")["validations"]] == [0, 1, 2, 3]
    assert [result_of(made, name)["settings"]["seed"] for name in ("diverse", "diverse-seed1")] == [0, 1]


def test_a_result_names_its_weights_and_those_that_it_builds_on(made: Path) -> None:
    weights = {row_id: result_of(made, row_id)["weights"] for row_id in ROWS}
    file = made.parent / "runs" / "tiny-cpu" / "sasrec" / "model" / "model.safetensors"
    assert weights["sasrec"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights["popularity"] == weights["mmr"] == ""
    built_on = {row_id: result_of(made, row_id)["built_on"] for row_id in ROWS}
    assert built_on["student"] == built_on["sasrec"] == {}
    assert built_on["mmr"] == {"sasrec": weights["sasrec"]}
    assert built_on["taught-by-mmr"] == built_on["expecting"] == {name: weights[name] for name in ("sasrec", "student")}


def test_a_reranker_that_gives_the_score_all_weight_is_its_base(made: Path) -> None:
    base = result_of(made, "sasrec")["points"]["top-k"]["means"]
    for curve in ("mmr", "pcount", "ild"):
        assert result_of(made, curve)["points"]["1"]["means"] == pytest.approx(base)


def test_next_k_agrees_with_top_k_on_the_first_item(made: Path) -> None:
    for row_id in ("student", *trained_kinds()):
        points = result_of(made, row_id)["points"]
        assert len({point["means"]["Recall@1"] for point in points.values()}) == 1


def test_a_set_that_is_made_has_nothing_to_do(made: Path) -> None:
    assert "every row has a result" in experiment(made, "run", made).output


def test_a_row_that_is_made_again_trains_no_further(made: Path) -> None:
    before = result_of(made, "sasrec")
    assert experiment(made, "run", made / "sasrec.toml").exit_code == 0
    after = result_of(made, "sasrec")
    assert (after["steps"], after["points"]) == (before["steps"], before["points"])


def shrunk(row: dict[str, Any]) -> dict[str, Any]:
    """Return a shipped row as it is, but for its sizes and budgets."""
    if "tune" in row:
        return {**row, "tune": {**row["tune"], "serial": True}, "budgets": {"cpu": TUNING}}
    if "pretrain" in row:
        return {**row, "budgets": {"cpu": STUDENT}}
    return {**row, "budgets": trained(row["train"]["model"])["budgets"]} if "train" in row else row


def test_every_row_curve_and_figure_of_the_built_in_set_comes_out(folder: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "experiments" / "synthetic"
    small = tmp_path / "synthetic"
    small.mkdir()
    dataset = tomllib.loads((shipped / "dataset.toml").read_text())
    world = tomllib.loads((folder / "dataset.toml").read_text())["synthetic"]
    dataset |= {"k": 3, "data": str(tmp_path / "data.npz"), "synthetic": world}
    (small / "dataset.toml").write_text(tomli_w.dumps(dataset))
    rows = {file.stem: tomllib.loads(file.read_text()) for file in shipped.glob("*.toml") if file.stem != "dataset"}
    for row_id, row in rows.items():
        (small / f"{row_id}.toml").write_text(tomli_w.dumps(shrunk(row)))
    made = experiment(small, "run", small)
    assert made.exit_code == 0, made.output
    table = experiment(small, "table", small)
    assert "not run" not in table.output
    assert all(row["name"] in table.output for row in rows.values() if "rerank" not in row)
    figures = experiment(small, "figures", small)
    assert figures.exit_code == 0, figures.output
    drawn = {file.stem for file in (tmp_path / "results" / "synthetic-cpu" / "figures").glob("*.png")}
    paths = {f"{row_id}-path" for row_id, row in rows.items() if "tune" in row}
    assert drawn >= {"figure-3", "figure-4", "figure-5", *paths}


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "csv"])
def test_table_has_every_model(style: str, made: Path) -> None:
    result = experiment(made, "table", made, "--format", style)
    assert result.exit_code == 0, result.output
    for row_id, row in ROWS.items():
        assert row_id in result.output or "rerank" in row
    assert "not run" not in result.output


def test_table_says_who_wins_and_writes_a_document(made: Path, tmp_path: Path) -> None:
    result = experiment(made, "table", made, "--report", tmp_path / "tiny.md")
    assert "Best on ndcg=1,ild=1: " in result.output
    assert "mmr, weight " in result.output
    assert "diverse: mean of 2 seeds" in result.output
    assert "expecting, tuned for it, is" in result.output or "Best on ndcg=1,ild=1: expecting" in result.output
    assert "## Tiny, budget cpu" in (tmp_path / "tiny.md").read_text()


def test_figures_and_report_are_written(made: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert experiment(made, "report", made, "--out", page).output == f"wrote {page}\n"
    names = {file.name for file in (made.parent / "results" / "tiny-cpu" / "figures").iterdir()}
    assert {"figure-3.png", "figure-4.png", "figure-5.png", "diverse-path.png", "unpopular-path.png"} <= names
    assert page.read_text(encoding="utf-8").count("data:image/png") == len(names)


def test_without_results_there_is_nothing_to_draw(folder: Path, tmp_path: Path) -> None:
    drawn = CliRunner().invoke(main, ["experiment", "figures", str(folder), "--results", str(tmp_path)])
    assert drawn.exit_code == 0
    assert "there is nothing to draw yet" in drawn.output


def test_a_row_needs_what_it_builds_on(folder: Path, tmp_path: Path) -> None:
    places = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    arguments = ["experiment", "run", str(folder / "unpopular.toml"), *places]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "student comes first" in result.output
    assert "run `gptrec-rl experiment run" in result.output
    assert not (tmp_path / "results").exists()
    with_it = CliRunner().invoke(main, [*arguments, "--with-dependencies"])
    assert with_it.exit_code == 0, with_it.output
    assert "[1/2] student" in with_it.output


def test_a_model_of_another_split_is_refused(made: Path, tmp_path: Path) -> None:
    dataset = (made / "dataset.toml").read_text()
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "dataset.toml").write_text(f"{dataset}\n[split]\nseed = 7\n")
    for name in ("sasrec", "mmr"):
        (tmp_path / "tiny" / f"{name}.toml").write_text((made / f"{name}.toml").read_text())
    places = ["--results", str(made.parent / "results"), "--runs", str(made.parent / "runs")]
    result = CliRunner().invoke(main, ["experiment", "run", str(tmp_path / "tiny" / "mmr.toml"), *places])
    assert result.exit_code == 2
    assert "sasrec was trained on another split" in result.output


def test_a_set_of_another_split_is_refused_before_anything_is_trained(made: Path, tmp_path: Path) -> None:
    folder = copied(made, tmp_path, "sasrec", "mmr")
    (tmp_path / "results" / "tiny-cpu" / "mmr.json").unlink()
    with (folder / "dataset.toml").open("a") as dataset:
        dataset.write("\n[split]\nseed = 7\n")
    result = experiment(folder, "run", folder)
    assert result.exit_code == 2
    assert "sasrec.json is of another split than" in " ".join(result.output.split())
    assert "[1/1]" not in result.output


def test_a_set_whose_weights_are_not_here_is_refused_before_its_first_row(made: Path, tmp_path: Path) -> None:
    folder = copied(made, tmp_path, "popularity", "sasrec", "mmr")
    shutil.rmtree(tmp_path / "runs")
    for name in ("popularity", "mmr"):
        (tmp_path / "results" / "tiny-cpu" / f"{name}.json").unlink()
    result = experiment(folder, "run", folder)
    assert result.exit_code == 2
    assert "sasrec comes first" in result.output
    assert "popularity, seed" not in result.output


def copied(made: Path, target: Path, *row_ids: str) -> Path:
    """Copy some rows, their runs and results, for a test to change; return the copied set."""
    folder = target / made.name
    folder.mkdir()
    for name in ("dataset", *row_ids):
        shutil.copy(made / f"{name}.toml", folder)
    for kind in ("runs", "results"):
        shutil.copytree(made.parent / kind, target / kind)
    return folder


@pytest.mark.parametrize(
    ("row_id", "before", "after", "message"),
    [
        ("sasrec", "width = 8", "width = 16", "was trained with model.width = 8, now 16; remove that folder"),
        ("sasrec", "batch_size = 8", "batch_size = 4", "was trained with batch_size = 8, now 4"),
        ("student", '"markov"', '"popularity"', "was begun with teacher markov and can't go on with popularity"),
        ("unpopular", "n_lists = 2", "n_lists = 3", "was trained with fleet.n_lists = 2, now 3"),
    ],
)
def test_a_row_does_not_go_on_with_what_was_trained_otherwise(
    row_id: str, before: str, after: str, message: str, made: Path, tmp_path: Path
) -> None:
    folder = copied(made, tmp_path, row_id, "student")
    file = folder / f"{row_id}.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    result = experiment(folder, "run", file)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert result_of(folder, row_id) == result_of(made, row_id)


def test_a_row_does_not_go_on_from_another_student(made: Path, tmp_path: Path) -> None:
    folder = copied(made, tmp_path, "unpopular", "student")
    runs = tmp_path / "runs" / "tiny-cpu"
    shutil.rmtree(runs / "student")
    shutil.copytree(runs / "taught-by-mmr", runs / "student")
    result = experiment(folder, "run", folder / "unpopular.toml")
    assert result.exit_code == 2
    assert "was trained on other weights than student has now; remove that folder" in " ".join(result.output.split())
    shutil.rmtree(runs / "unpopular")
    assert experiment(folder, "run", folder / "unpopular.toml").exit_code == 0
    assert result_of(folder, "unpopular")["built_on"] == {"student": result_of(made, "taught-by-mmr")["weights"]}


def test_a_set_names_the_rows_whose_base_was_trained_anew(made: Path, tmp_path: Path) -> None:
    folder = copied(made, tmp_path, "unpopular", "student")
    assert "trained anew" not in experiment(folder, "run", folder).output
    file = tmp_path / "results/tiny-cpu/student.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "weights": "others"}))
    result = experiment(folder, "run", folder)
    assert result.exit_code == 0, result.output
    assert "has been trained anew since its result was made; `gptrec-rl experiment run" in result.output


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("markof.toml", (), "there is no row 'markof'"),
        ("student.toml", ("--budget", "paper"), "there is no budget 'paper'; give one of cpu"),
        ("diverse.toml", ("--seed", "5"), "has no seed 5, but 0, 1"),
    ],
)
def test_what_is_wrong_is_named(target: str, options: tuple[str, ...], message: str, folder: Path) -> None:
    result = experiment(folder, "run", folder / target, *options)
    assert result.exit_code == 2
    assert message in result.output


def test_a_wrong_setting_is_named_with_its_row(folder: Path) -> None:
    row = {
        "name": "wrong",
        "type": "any",
        "place": 99,
        "train": {"model": "sasrec"},
        "budgets": {"cpu": {"max_step": 1}},
    }
    own = folder.parent / "wrong"
    own.mkdir()
    (own / "dataset.toml").write_text((folder / "dataset.toml").read_text())
    (own / "wrong.toml").write_text(tomli_w.dumps(row))
    result = experiment(folder, "run", own)
    assert result.exit_code == 2
    assert "wrong.toml" in result.output
    assert "there is no setting max_step; did you mean max_steps?" in result.output
