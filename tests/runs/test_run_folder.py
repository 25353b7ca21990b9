from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptrec_rl.config import PretrainConfig, TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.data import Catalogue, Interactions, Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.network import Network
from gptrec_rl.runs.inputs import INPUTS
from gptrec_rl.runs.run_folder import CONFIG, Run, claim_folder, prepare_run, sole_user, stored_settings
from gptrec_rl.store.manifest import Origin
from gptrec_rl.store.trained_models import STUDENT, load_policy, save_policy

MakeConfig = Callable[..., TuneConfig]


def save_student(folder: Path, policy: GPTRec, split: Split) -> Path:
    hashes = {"catalogue_hash": split.catalogue.hash, "split_hash": split.hash}
    save_policy(folder, policy.to_files(), step=9, config={}, **hashes)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(world: Split, tmp_path: Path) -> Path:
    world.interactions.save(tmp_path / "data.npz")
    return tmp_path / "data.npz"


@pytest.fixture
def student_folder(world: Split, student: GPTRec, tmp_path: Path) -> Path:
    return save_student(tmp_path / "a student", student, world)


@pytest.fixture
def run_config(data: Path, make_config: MakeConfig) -> Callable[..., TuneConfig]:
    def make(**changes: Any) -> TuneConfig:
        return make_config(**{"data": str(data), "split": {"validation_users": 12}, **changes})

    return make


def test_a_prepared_run_has_its_own_student_and_opens_as_it_was_configured(
    run_config: MakeConfig, world: Split, student: GPTRec, student_folder: Path, tmp_path: Path
) -> None:
    prepared = prepare_run(tmp_path / "run", run_config(seed=5), student_folder, "fail")
    opened = Run.open(tmp_path / "run")
    assert opened.config == prepared.config
    assert opened.config == run_config(seed=5).model_copy(update={"run_id": opened.config.run_id})
    assert opened.split.hash == world.hash
    for file in student_folder.iterdir():
        file.unlink()
    assert opened.student().to_files() == student.to_files()


def test_each_run_draws_an_id(run_config: MakeConfig, student_folder: Path, tmp_path: Path) -> None:
    ids = {prepare_run(tmp_path / name, run_config(), student_folder, "fail").config.run_id for name in "ab"}
    assert len(ids) == 2


def test_a_run_that_exists_is_refused_and_left_alone(
    run_config: MakeConfig, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="exists; continue it with --on-existing resume, replace it with"):
        prepare_run(tmp_path / "run", run_config(seed=1), student_folder, "fail")
    assert contents(tmp_path / "run") == before


def test_a_resumed_run_keeps_its_id_and_its_student_and_takes_new_budgets(
    run_config: MakeConfig,
    world: Split,
    student: GPTRec,
    make_policy: Callable[..., GPTRec],
    student_folder: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    first = prepare_run(folder, run_config(), student_folder, "fail")
    other = save_student(tmp_path / "other", make_policy(world.catalogue.n_items, 8, 4, seed=1), world)
    stored = TuneConfig(**{**stored_settings(folder), "steps": 99})
    resumed = prepare_run(folder, stored, other, "resume")
    assert (resumed.config.run_id, resumed.config.steps) == (first.config.run_id, 99)
    assert Run.open(folder).config.steps == 99
    assert resumed.student().to_files() == student.to_files()


def test_resuming_what_is_not_there_starts_it(run_config: MakeConfig, student_folder: Path, tmp_path: Path) -> None:
    assert stored_settings(tmp_path / "run") == {}
    prepare_run(tmp_path / "run", run_config(), student_folder, "resume")
    assert (tmp_path / "run" / CONFIG).exists()


def test_a_run_is_not_resumed_for_another_goal(run_config: MakeConfig, student_folder: Path, tmp_path: Path) -> None:
    prepare_run(tmp_path / "run", run_config(goal="ndcg=1,ild=1"), student_folder, "fail")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=r"was tuned for ndcg=1,ild=1 and can't go on for ndcg=1,ild=2"):
        prepare_run(tmp_path / "run", run_config(goal="ndcg=1,ild=2"), None, "resume")
    assert contents(tmp_path / "run") == before
    prepare_run(tmp_path / "run", run_config(goal="ndcg=1.0, ild=1"), None, "resume")  # the same, written otherwise


def test_overwriting_leaves_nothing_of_the_old_run(
    run_config: MakeConfig, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    (tmp_path / "run/metrics.jsonl").touch()
    prepare_run(tmp_path / "run", run_config(), student_folder, "overwrite")
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_run_can_start_from_the_student_of_the_run_that_it_overwrites(
    run_config: MakeConfig, student: GPTRec, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    run = prepare_run(tmp_path / "run", run_config(), tmp_path / "run" / STUDENT, "overwrite")
    assert run.student().to_files() == student.to_files()


@pytest.mark.parametrize("on_existing", ["fail", "resume", "overwrite"])
def test_a_folder_of_other_things_is_never_touched(tmp_path: Path, on_existing: Any) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="is not a run folder"):
        claim_folder(tmp_path, on_existing)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    assert not claim_folder(tmp_path, "fail")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": "ndgc=1"}, "unknown reward 'ndgc'; did you mean 'ndcg'"),
        ({"goal": "ndcg"}, "is not name=weight"),
        ({"goal": "no_such_module:reward=1"}, "can't be imported"),
        ({"ppo": {"baseline": "group"}, "fleet": {"n_lists": 1}}, "set fleet.n_lists to 2 or more"),
        ({"fleet": {"n_histories": 60_000, "n_lists": 60_000}}, "lower fleet.n_histories or fleet.n_lists"),
        ({"ppo": {"kl_target": 0.1}}, "kl_target adapts ppo.kl_weight, which is 0"),
        ({"split": {"validation_users": 60}}, "validation users can't be drawn"),
        ({"data": "/nowhere/data.npz"}, "is not there; make it with"),
    ],
)
def test_bad_settings_are_named_and_nothing_is_written(
    changes: dict[str, Any], message: str, run_config: MakeConfig, student_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        prepare_run(tmp_path / "run", run_config(**changes), student_folder, "fail")
    assert not (tmp_path / "run").exists()


def test_a_goal_of_genres_needs_genres(run_config: MakeConfig, world: Split, student: GPTRec, tmp_path: Path) -> None:
    genres = world.catalogue.genres.copy()
    genres[6] = False
    catalogue = dataclasses.replace(world.catalogue, genres=genres)
    interactions = dataclasses.replace(world.interactions, catalogue=catalogue)
    interactions.save(tmp_path / "ungenred.npz")
    folder = save_student(tmp_path / "its student", student, Split.of(interactions))
    config = run_config(data=str(tmp_path / "ungenred.npz"))
    with pytest.raises(InputError, match=r"item '7' has no genre \(1 of 48 items"):
        prepare_run(tmp_path / "run", config, folder, "fail")
    assert not (tmp_path / "run").exists()
    prepare_run(tmp_path / "run", config.model_copy(update={"goal": "ndcg=1,pcount=1"}), folder, "fail")


def test_without_a_student_there_is_nothing_to_tune(run_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give one with --student"):
        prepare_run(tmp_path / "run", run_config(), None, "fail")
    with pytest.raises(InputError, match=r"is not a checkpoint: it has no manifest\.json"):
        prepare_run(tmp_path / "run", run_config(), tmp_path / "nowhere", "fail")
    assert not (tmp_path / "run").exists()


def other_data(world: Split, path: Path) -> Path:
    """Save the same histories over a catalogue of other items."""
    catalogue: Catalogue = dataclasses.replace(world.catalogue, item_ids=np.char.add(world.catalogue.item_ids, "'"))
    Interactions(catalogue, world.interactions.user_ids, world.interactions.histories, "other").save(path)
    return path


def test_a_student_of_another_catalogue_is_refused(
    run_config: MakeConfig, world: Split, student_folder: Path, tmp_path: Path
) -> None:
    config = run_config(data=str(other_data(world, tmp_path / "other.npz")))
    with pytest.raises(InputError, match="was trained on another catalogue"):
        prepare_run(tmp_path / "run", config, student_folder, "fail")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_on_another_catalogue(
    run_config: MakeConfig, world: Split, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    before = contents(tmp_path / "run")
    config = run_config(data=str(other_data(world, tmp_path / "other.npz")))
    with pytest.raises(InputError, match=r"was begun with .* and can't go on with"):
        prepare_run(tmp_path / "run", config, None, "resume")
    assert contents(tmp_path / "run") == before


def test_a_run_is_not_resumed_when_its_data_file_has_other_content_by_the_same_name(
    run_config: MakeConfig, data: Path, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    before = contents(tmp_path / "run")
    synthetic.generate(n_users=60, n_items=48, mean_length=12, seed=1).save(data)
    message = r"run was begun with .* [0-9a-f]{12} and can't go on with [0-9a-f]{12}: results of two don't compare"
    with pytest.raises(InputError, match=message):
        prepare_run(tmp_path / "run", run_config(), None, "resume")
    with pytest.raises(InputError, match=message):
        Run.open(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        prepare_run(tmp_path / "again", run_config(), student_folder, "fail", repeated=tmp_path / "run")
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "again").exists()


def test_a_run_is_not_resumed_with_another_split(run_config: MakeConfig, student_folder: Path, tmp_path: Path) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    with pytest.raises(InputError, match="was begun with data and split"):
        prepare_run(tmp_path / "run", run_config(split={"validation_users": 11}), None, "resume")


def test_a_run_is_resumed_with_data_that_have_moved(
    run_config: MakeConfig, data: Path, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    data.rename(tmp_path / "moved.npz")
    run = prepare_run(tmp_path / "run", run_config(data=str(tmp_path / "moved.npz")), None, "resume")
    assert Run.open(tmp_path / "run").config.data == run.config.data == str(tmp_path / "moved.npz")


def test_a_run_goes_on_with_a_reward_model_that_moved_and_not_with_another_in_its_place(
    run_config: MakeConfig,
    world: Split,
    make_network: Callable[..., Network],
    student_folder: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"

    def config(name: str) -> TuneConfig:
        return run_config(goal="expected_ndcg=1", reward_model=str(tmp_path / name))

    for name, seed in (("model", 0), ("moved", 0), ("other", 1)):
        network = make_network("sasrec", world.catalogue.n_items, seed=seed)
        hashes = {"catalogue_hash": world.catalogue.hash, "split_hash": world.hash}
        save_policy(tmp_path / name, network.to_files(), step=9, config={}, **hashes)
    prepare_run(tmp_path / "run", config("model"), student_folder, "fail")
    prepare_run(tmp_path / "run", config("moved"), None, "resume")
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=r"was begun with reward model [0-9a-f]{12} and can't go on with"):
        prepare_run(tmp_path / "run", config("other"), None, "resume")
    shutil.rmtree(tmp_path / "moved")
    shutil.copytree(tmp_path / "other", tmp_path / "moved")
    for resume in (lambda: prepare_run(tmp_path / "run", config("moved"), None, "resume"), lambda: Run.open(folder)):
        with pytest.raises(InputError, match="was begun with reward model"):
            resume()
    assert contents(tmp_path / "run") == before


def test_that_the_code_of_ones_own_reward_has_changed_is_said(
    run_config: MakeConfig,
    student_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "reward_that_changes.py"
    file.write_text("def ones(slates, *_):\n    return slates * 0.0 + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = run_config(goal="ndcg=1,reward_that_changes:ones=1")
    prepare_run(tmp_path / "run", config, student_folder, "fail")
    prepare_run(tmp_path / "run", config, None, "resume")
    assert "has changed" not in caplog.text
    file.write_text("def ones(slates, *_):\n    return slates * 0.0 + 2\n")
    prepare_run(tmp_path / "run", config, None, "resume")
    assert "the module of reward_that_changes:ones has changed since" in caplog.text


def test_a_run_of_before_its_inputs_were_recorded_goes_on_and_gets_a_record(
    run_config: MakeConfig, student_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    before = (tmp_path / "run" / INPUTS).read_bytes()
    (tmp_path / "run" / INPUTS).unlink()
    prepare_run(tmp_path / "run", run_config(), None, "resume")
    assert "doesn't say with which catalogue, data and split it was begun" in caplog.text
    assert (tmp_path / "run" / INPUTS).read_bytes() == before


def test_a_student_that_a_resumed_run_did_not_begin_with_is_pointed_out_and_a_missing_one_is_not_needed(
    run_config: MakeConfig,
    world: Split,
    make_policy: Callable[..., GPTRec],
    student_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    for needless in (student_folder, tmp_path / "nowhere"):
        prepare_run(tmp_path / "run", run_config(), needless, "resume")
    assert caplog.text == ""
    other = save_student(tmp_path / "other", make_policy(world.catalogue.n_items, 8, 4, seed=1), world)
    prepare_run(tmp_path / "run", run_config(), other, "resume")
    assert "is not what the run began with; it goes on from its own student" in caplog.text


def test_a_run_that_exists_is_named_before_the_student_that_is_missing(
    run_config: MakeConfig, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    with pytest.raises(InputError, match="exists; continue it with --on-existing resume"):
        prepare_run(tmp_path / "run", run_config(), None, "fail")


def test_the_folder_of_a_training_is_no_run_to_resume(run_config: MakeConfig, tmp_path: Path) -> None:
    write_config(PretrainConfig(), tmp_path / CONFIG)
    with pytest.raises(InputError, match=r"is a training \(`gptrec-rl pretrain`\) and not a tuning run"):
        stored_settings(tmp_path)


def test_a_damaged_student_is_refused(run_config: MakeConfig, student_folder: Path, tmp_path: Path) -> None:
    weights = student_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors has \d+ bytes"):
        prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    assert not (tmp_path / "run").exists()


def test_only_run_folders_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.toml"):
        Run.open(tmp_path)


def test_a_run_opens_with_data_that_has_moved(
    run_config: MakeConfig, data: Path, world: Split, student_folder: Path, tmp_path: Path
) -> None:
    prepare_run(tmp_path / "run", run_config(), student_folder, "fail")
    data.rename(tmp_path / "moved.npz")
    with pytest.raises(InputError, match="is not there"):
        Run.open(tmp_path / "run")
    assert Run.open(tmp_path / "run", tmp_path / "moved.npz").split.hash == world.hash


def test_its_transport_has_the_limits_and_keeps_checkpoints_in_the_folder(
    run_config: MakeConfig, world: Split, student_folder: Path, tmp_path: Path
) -> None:
    limits = {"cache_batches": 3, "max_staleness": 1, "max_reuse": 2}
    run = prepare_run(tmp_path / "run", run_config(fleet=limits), student_folder, "fail")
    transport = run.memory_transport()
    assert dataclasses.astuple(transport.cache.limits) == (3, 1, 2)
    transport.store.publish_policy(
        run.student().to_files(),
        Origin(token=1, version=0, step=0, catalogue_hash=world.catalogue.hash, split_hash=world.hash, config={}),
    )
    assert load_policy(tmp_path / "run", world.catalogue).slate_length == 4
    assert (tmp_path / "run/store/LATEST").exists()


def test_a_run_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    with sole_user(tmp_path / "run"):
        (tmp_path / "run" / CONFIG).write_text("")
        with (
            pytest.raises(InputError, match=r"another process is at work in .*run; stop it first"),
            sole_user(tmp_path / "run"),
        ):
            pytest.fail("two users")
    with sole_user(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / CONFIG).exists()


def test_a_folder_that_nothing_was_written_into_goes_again(tmp_path: Path) -> None:
    with sole_user(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_a_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match=r"run folder .*run can't be used: File exists"), sole_user(tmp_path / "run"):
        pytest.fail("a file is no folder")


def test_a_student_of_another_split_is_pointed_out(
    world: Split, student: GPTRec, data: Path, make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hashes = {"catalogue_hash": world.catalogue.hash, "split_hash": "another"}
    save_policy(tmp_path / "other", student.to_files(), step=9, config={}, **hashes)
    prepare_run(tmp_path / "run", make_config(data=str(data)), tmp_path / "other", "fail")
    assert "was trained on another split" in caplog.text
