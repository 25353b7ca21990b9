"""What a path that is called a run folder is: a tuning run, a training, or something else that is named."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import MAX_FILE_BYTES, read_config
from gptrec_rl.errors import InputError, StorageError, may_pass
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.store.manifest import MANIFEST

CONFIG = "config.toml"
SHOWN_RUNS = 5

Command = Literal["tune", "pretrain", "train"]


def made_by(folder: Path) -> Command:
    """Return the command that made a run folder.

    Raises:
        InputError: it is none; says what it is instead.
    """
    try:
        config = tomllib.loads(LocalStorage(folder).read(CONFIG, MAX_FILE_BYTES).decode())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is not a run folder: it has no {CONFIG}; it {_in_words(folder)}. Give the --run-dir of `tune`, "
            "`pretrain` or `train`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        kind = StorageError if isinstance(error, OSError) and may_pass(error) else InputError
        raise kind(f"the configuration {folder / CONFIG} can't be read: {error}") from None
    if "fleet" in config:
        return "tune"
    return "pretrain" if "teacher" in config else "train"


def read_tuning_config(folder: Path) -> TuneConfig:
    """Read the configuration of a tuning run.

    Raises:
        InputError: the folder is none of a tuning run, and what it is is named; or a setting is wrong.
    """
    command = made_by(folder)
    if command != "tune":
        raise InputError(
            f"{folder} is a training (`gptrec-rl {command}`) and not a tuning run; give the --run-dir of `tune`"
        )
    return read_config(TuneConfig, folder / CONFIG)


def require_training(folder: Path) -> Command:
    """Return the command that made a training.

    Raises:
        InputError: as in `made_by`, or it is a tuning run.
    """
    command = made_by(folder)
    if command == "tune":
        raise InputError(f"{folder} is a tuning run and not a training; give the --run-dir of `pretrain` or `train`")
    return command


def _in_words(path: Path) -> str:
    if not path.exists():
        return "isn't there"
    if path.is_file():
        return "is a data file" if path.suffix == ".npz" else "is a file"
    if (path / MANIFEST).exists():
        return "is a trained model by itself"
    if (path / "dataset.toml").exists():
        return "is a set of experiments"
    if runs := sorted(config.parent.name for config in path.glob(f"*/{CONFIG}")):
        more = ", ..." if len(runs) > SHOWN_RUNS else ""
        return f"is a folder of runs ({', '.join(runs[:SHOWN_RUNS])}{more})"
    if any(path.glob("*.parquet")) and any(path.glob("*.json")):
        return "has results of experiments"
    return "has other things in it" if any(path.iterdir()) else "is empty"
