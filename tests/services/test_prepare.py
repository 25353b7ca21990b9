"""What a fleet of containers starts from: made once, checked and taken up afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.transport.access import acl_file
from services.prepare import main

TINY = "max_steps=2 batch_size=4 model.width=8 model.n_layers=1 model.n_heads=1 model.history_length=5"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log as it is mounted: the name says nothing of the kind of file."""
    world = generate(n_users=40, n_items=40, mean_length=10)
    file = tmp_path_factory.mktemp("mounted") / "log"
    genres = ["|".join(world.catalogue.genres_of(item)) for item in range(1, 41)]
    rows = [
        f"u{user},i{item},{place},{genres[item - 1]}"
        for user, h in enumerate(world.histories)
        for place, item in enumerate(h)
    ]
    file.write_text("\n".join(["user,item,timestamp,genres", *rows]) + "\n")
    return file


def prepare(folder: Path, log: Path, name: str, **settings: str) -> Result:
    options = ["--run-dir", str(folder / "run"), "--secrets-dir", str(folder / "secrets"), "--log", str(log)]
    environment = {"GPTREC_LOG_NAME": name, "GPTREC_PRETRAIN_SETTINGS": TINY, "GPTREC_MAX_MINUTES": ""}
    return CliRunner().invoke(main, options, env={**environment, **settings})


@pytest.fixture(scope="module")
def prepared(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    done = prepare(folder, log, "./mine.csv", GPTREC_STEPS="5", GPTREC_SETTINGS="fleet.n_lists=4 seed=7")
    assert done.exit_code == 0, done.output
    return folder


def config_of(folder: Path) -> TuneConfig:
    return read_config(TuneConfig, folder / "run/tuned/config.toml")


def test_a_users_log_becomes_a_run_with_the_users_settings(prepared: Path) -> None:
    config = config_of(prepared)
    assert (config.steps, config.max_minutes, config.fleet.n_lists, config.seed) == (5, None, 4, 7)
    assert config.data == str(prepared / "run/data.npz")
    assert (prepared / "run/tuned/student/model.safetensors").exists()


def test_redis_opens_to_the_password_for_the_keys_of_this_run(prepared: Path) -> None:
    password = (prepared / "secrets/password").read_text()
    assert len(password) == 64
    assert (prepared / "secrets/users.acl").read_text() == acl_file(config_of(prepared).run_id, password)


def test_the_next_time_takes_changed_settings_up_and_keeps_the_rest(prepared: Path, log: Path) -> None:
    before, secrets = config_of(prepared), (prepared / "secrets/users.acl").read_text()
    student = (prepared / "run/student/student/model.safetensors").stat().st_mtime_ns
    done = prepare(prepared, log, "./mine.csv", GPTREC_STEPS="9")
    assert done.exit_code == 0, done.output
    config = config_of(prepared)
    assert (config.steps, config.fleet.n_lists, config.run_id) == (9, 8, before.run_id)
    assert (prepared / "secrets/users.acl").read_text() == secrets
    assert (prepared / "run/student/student/model.safetensors").stat().st_mtime_ns == student


def test_without_a_budget_there_are_two_minutes(prepared: Path, log: Path) -> None:
    assert prepare(prepared, log, "./mine.csv").exit_code == 0
    assert (config_of(prepared).steps, config_of(prepared).max_minutes) == (None, 2.0)


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("./mine.csv", {"GPTREC_GOAL": "ndcg=1"}, "was tuned for ndcg=1,ild=1 and can't go on for ndcg=1"),
        ("./mine.csv", {"GPTREC_SETTINGS": "fleet.n_list=4"}, "n_lists"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    prepared: Path, log: Path, name: str, settings: dict[str, str], complaint: str
) -> None:
    before = config_of(prepared)
    done = prepare(prepared, log, name, **settings)
    assert done.exit_code == 2
    assert complaint in done.output
    assert "give RUN another name" in done.output
    assert config_of(prepared) == before


def test_a_log_that_has_changed_is_refused_whatever_its_name(prepared: Path, log: Path, tmp_path: Path) -> None:
    changed = tmp_path / "log"
    changed.write_text(log.read_text() + "u0,i7,999,\n")
    before = (prepared / "run/data.npz").read_bytes()
    for name in ("./mine.csv", "./other.csv"):
        done = prepare(prepared, changed, name)
        assert done.exit_code == 2
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in (log, changed)]
        assert f"was begun with log {hashes[0]} and can't go on with {hashes[1]}" in done.output
        assert "give RUN another name" in done.output
    assert (prepared / "run/data.npz").read_bytes() == before


def test_the_same_log_may_have_moved(prepared: Path, log: Path, tmp_path: Path) -> None:
    moved = tmp_path / "log"
    moved.write_bytes(log.read_bytes())
    assert prepare(prepared, moved, "./elsewhere.csv").exit_code == 0


def test_a_log_that_is_gone_is_not_needed_again(
    prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = prepare(prepared, tmp_path / "nowhere", "./mine.csv")
    assert gone.exit_code == 0, gone.output
    assert "./mine.csv is not there any more" in caplog.text
    other = prepare(prepared, tmp_path / "nowhere", "./other.csv")
    assert other.exit_code == 2
    assert "was made from ./mine.csv, and not from ./other.csv" in other.output


def test_built_in_data_do_not_take_the_place_of_a_log(prepared: Path) -> None:
    options = ["--run-dir", str(prepared / "run"), "--secrets-dir", str(prepared / "secrets")]
    done = CliRunner().invoke(main, options, env={"GPTREC_LOG_NAME": None, "GPTREC_LOG": None})
    assert done.exit_code == 2
    assert "and can't go on with the built-in data" in done.output


def test_changed_settings_of_a_stage_1_that_is_over_are_named(
    prepared: Path, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    assert prepare(prepared, log, "./mine.csv").exit_code == 0
    assert caplog.text == ""
    other = TINY.replace("model.width=8", "model.width=16")
    assert prepare(prepared, log, "./mine.csv", GPTREC_PRETRAIN_SETTINGS=other).exit_code == 0
    assert "stage 1 is over, with model.width = 8; that it was changed to 16 has no effect" in caplog.text


def test_a_run_that_was_prepared_without_a_record_is_known_by_the_name_of_its_log_and_gets_one(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepare(tmp_path, log, "./mine.csv").exit_code == 0
    record = tmp_path / "run/inputs.json"
    before = record.read_bytes()
    record.unlink()
    assert "was made from ./mine.csv, and not from ./other.csv" in prepare(tmp_path, log, "./other.csv").output
    assert prepare(tmp_path, log, "./mine.csv").exit_code == 0
    assert "doesn't say with which log it was begun" in caplog.text
    assert record.read_bytes() == before


def test_a_goal_that_cannot_be_computed_costs_no_training(log: Path, tmp_path: Path) -> None:
    done = prepare(tmp_path, log, "./mine.csv", GPTREC_GOAL="ndgc=1")
    assert done.exit_code == 2
    assert "ndgc" in done.output
    assert "give RUN another name" not in done.output
    assert not (tmp_path / "run/student").exists()


def test_a_file_that_is_not_there_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    done = prepare(tmp_path, tmp_path, "./missing.csv")  # what the engine makes of it is a folder
    assert done.exit_code == 2
    assert "DATA=./missing.csv is no file" in done.output
