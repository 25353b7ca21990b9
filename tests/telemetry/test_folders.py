from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gptrec_rl.config import PretrainConfig, SASRecConfig, TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.telemetry.folders import made_by, read_tuning_config, require_training


def test_a_run_folder_is_known_by_the_command_that_made_it(tmp_path: Path) -> None:
    for command, config in (("tune", TuneConfig()), ("pretrain", PretrainConfig()), ("train", SASRecConfig())):
        write_config(config, tmp_path / "config.toml")
        assert made_by(tmp_path) == command


def test_a_training_is_no_tuning_run_nor_the_other_way_round(tmp_path: Path) -> None:
    write_config(PretrainConfig(), tmp_path / "config.toml")
    assert require_training(tmp_path) == "pretrain"
    with pytest.raises(InputError, match=r"is a training \(`gptrec-rl pretrain`\) and not a tuning run"):
        read_tuning_config(tmp_path)
    write_config(TuneConfig(steps=3), tmp_path / "config.toml")
    assert read_tuning_config(tmp_path) == TuneConfig(steps=3)
    with pytest.raises(InputError, match="is a tuning run and not a training"):
        require_training(tmp_path)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("manifest.json", "it is a trained model by itself"),
        ("dataset.toml", "it is a set of experiments"),
        ("b/config.toml", r"it is a folder of runs \(b\)"),
        ("notes.txt", "it has other things in it"),
    ],
)
def test_other_folders_are_named_by_what_they_are(file: str, what: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(InputError, match=rf"is not a run folder: it has no config\.toml; {what}\."):
        made_by(tmp_path)


def test_results_files_and_what_is_not_there_are_named(tmp_path: Path) -> None:
    for name in ("a.json", "a.parquet", "data.npz"):
        (tmp_path / name).write_text("")
    for path, what in (
        (tmp_path, "it has results of experiments"),
        (tmp_path / "data.npz", "it is a data file"),
        (tmp_path / "a.json", "it is a file"),
        (tmp_path / "nowhere", "it isn't there"),
    ):
        with pytest.raises(InputError, match=what):
            made_by(path)


@pytest.mark.parametrize("content", ["= 3", "x = " + "[" * 10_000, "x = 1 # " + "." * 100_000])
def test_a_configuration_that_cannot_be_read_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError, match=r"config\.toml can't be read"):
        made_by(tmp_path)


def test_a_read_that_fails_is_no_missing_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    write_config(TuneConfig(), tmp_path / "config.toml")
    monkeypatch.setattr("gptrec_rl.store.files.LocalStorage.read", fails)
    with pytest.raises(StorageError, match=r"can't be read: .*Input/output error"):
        read_tuning_config(tmp_path)
