"""A study: what is missing and in which order it is made, and what can't stand in one table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli_w

from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.errors import InputError
from gptrec_rl.experiments.sets import read_set
from gptrec_rl.experiments.study import Study


def test_a_set_is_made_in_an_order_in_which_each_row_finds_what_it_builds_on(tiny: Path, study: Study) -> None:
    text = (tiny / "sasrec.toml").read_text().replace("place = 1", "place = 99")
    (tiny / "sasrec.toml").write_text(text)
    study = dataclasses.replace(study, experiments=read_set(tiny, "cpu"))
    assert next(reversed(study.experiments.rows)) == "sasrec"
    assert study.jobs(None, None, False) == [
        *[("popularity", 0), ("sasrec", 0), ("student", 0), ("diverse", 0), ("diverse", 1), ("mmr", 0)]
    ]


def test_rows_with_a_result_are_not_made_again(study: Study, make_up) -> None:
    make_up("popularity")
    make_up("diverse", seed=1)
    assert study.jobs(None, None, False) == [("sasrec", 0), ("student", 0), ("diverse", 0), ("mmr", 0)]
    study.result_file("popularity", 0).with_suffix(".parquet").unlink()  # half a result is none
    assert ("popularity", 0) in study.jobs(None, None, False)
    assert study.jobs(None, 1, False) == []


def test_a_row_is_made_alone_or_with_what_it_lacks(study: Study, make_up) -> None:
    assert study.jobs("diverse", None, False) == [("diverse", 0), ("diverse", 1)]
    assert study.jobs("diverse", 1, False) == [("diverse", 1)]
    assert study.jobs("diverse", 1, True) == [("sasrec", 0), ("student", 0), ("diverse", 1)]
    make_up("sasrec")
    assert study.jobs("student", None, True) == [("sasrec", 0), ("student", 0)]  # a result without weights
    study.run_dir("sasrec", 0).mkdir(parents=True)
    assert study.jobs("student", None, True) == [("student", 0)]


def test_jobs_are_refused_together_when_one_lacks_what_it_builds_on(study: Study, make_up) -> None:
    study.require_bases(study.jobs(None, None, False))  # each is made by an earlier one
    for row_id in ("sasrec", "student"):
        make_up(row_id)
    jobs = study.jobs(None, None, False)
    assert jobs[0] == ("popularity", 0)
    with pytest.raises(InputError, match=r"student comes first, and its model in .* isn't finished; run `"):
        study.require_bases(jobs)
    study.require_bases(study.jobs(None, None, True))


def test_a_seed_that_the_row_has_not_is_refused(study: Study) -> None:
    with pytest.raises(InputError, match=r"diverse\.toml has no seed 7, but 0, 1; add it there"):
        study.jobs("diverse", 7, False)


def test_a_budget_that_a_row_has_not_is_refused_before_any_is_made(study: Study) -> None:
    with pytest.raises(InputError, match=r"sasrec\.toml: there is no budget 'paper'; give one of cpu"):
        dataclasses.replace(study, budget="paper").jobs(None, None, False)
    assert dataclasses.replace(study, budget="paper").jobs("popularity", None, False) == [("popularity", 0)]


def test_what_comes_first_is_asked_for_by_its_command(study: Study, make_up) -> None:
    assert study.model("markov", 0) == "markov"
    assert study.model("popularity", 0) == "popularity"
    with pytest.raises(InputError) as raised:
        study.model("sasrec", 0)
    assert f"run `{study.command('sasrec', 0)}`, or add --with-dependencies" in str(raised.value)
    make_up("sasrec")
    study.run_dir("sasrec", 0).mkdir(parents=True)
    assert study.model("sasrec", 5) == str(study.run_dir("sasrec", 0))


def test_seeds_have_their_own_folders_and_files(study: Study) -> None:
    assert study.run_dir("diverse", 0).name == "diverse"
    assert study.run_dir("diverse", 1).name == "diverse-seed1"
    assert study.result_file("diverse", 1).name == "diverse-seed1.json"
    assert "--seed 1" in study.command("diverse", 1)
    assert "--seed" not in study.command("sasrec", 0)


def test_absent_data_are_named_with_the_command_that_makes_them(study: Study) -> None:
    study.data_file.unlink()
    with pytest.raises(
        InputError, match=r"tiny\.npz, which isn't there; make it by `gptrec-rl data prepare synthetic`"
    ):
        study.split()


def test_other_data_are_refused(tiny: Path, study: Study) -> None:
    text = (tiny / "dataset.toml").read_text().replace('"synthetic"\n', '"ml-1m"\n')
    (tiny / "dataset.toml").write_text(text)
    with pytest.raises(InputError, match=r"holds 'synthetic' and .* is about 'ml-1m'"):
        dataclasses.replace(study, experiments=read_set(tiny, "cpu")).split()


def test_a_set_that_makes_its_data_needs_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    world = {"n_users": 30, "n_items": 40, "mean_length": 8.0}
    dataset = {"title": "t", "data": str(tmp_path / "made.npz"), "data_name": "synthetic", "synthetic": world}
    (folder / "dataset.toml").write_text(tomli_w.dumps(dataset))
    row = {"name": "n", "type": "t", "place": 1, "built_in": {"model": "markov"}}
    (folder / "markov.toml").write_text(tomli_w.dumps(row))
    study = Study(read_set(folder, "cpu"), "cpu", data=tmp_path / "another.npz")
    assert study.split().interactions.n_users == 30
    assert (tmp_path / "made.npz").exists()
    assert study.split().interactions.n_users == 30
    (folder / "dataset.toml").write_text(tomli_w.dumps({**dataset, "synthetic": {**world, "seed": 1}}))
    with pytest.raises(InputError, match=r"made\.npz isn't what \[synthetic\] of .* makes now"):
        dataclasses.replace(study, experiments=read_set(folder, "cpu")).split()


def test_results_of_another_split_are_refused(study: Study, make_up) -> None:
    make_up("popularity")
    other = Split.of(study.split().interactions, SplitConfig(seed=7))
    make_up("sasrec", users=other)
    with pytest.raises(InputError, match=r"can't stand in one table: .*split_hash is ") as raised:
        study.made()
    assert f"`{study.command('popularity', 0)}` or `{study.command('sasrec', 0)}`" in str(raised.value)
    with pytest.raises(InputError, match=r"sasrec\.json is of another split than .*tiny\.npz and .*dataset\.toml"):
        study.require_split(study.split())


def test_results_of_lists_of_another_length_are_refused(tiny: Path, study: Study, make_up) -> None:
    make_up("popularity")
    study.require_split(study.split())
    (tiny / "dataset.toml").write_text((tiny / "dataset.toml").read_text().replace("k = 3", "k = 2"))
    study = dataclasses.replace(study, experiments=read_set(tiny, "cpu"))
    for refuse in (study.made, lambda: study.require_split(study.split())):
        with pytest.raises(InputError, match=r"popularity\.json has lists of 3 and .*dataset\.toml says k = 2"):
            refuse()


def test_results_of_other_users_are_refused(study: Study, make_up) -> None:
    make_up("popularity")
    split = study.split()
    few = dataclasses.replace(split.test, users=split.test.users[::-1])
    fewer = dataclasses.replace(split)
    fewer.__dict__["test"] = few
    make_up("sasrec", users=fewer)
    with pytest.raises(InputError, match="they were evaluated on different users"):
        study.made()
