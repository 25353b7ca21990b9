"""What the results of a run depend on, by content: recorded in its folder at its start, and compared on every resume.

A file that was moved is the same input; one of the same name with other content isn't.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import InputError, StorageError, may_pass
from gptrec_rl.goals import parse_goal
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.store.manifest import parse_json, refused_writes
from gptrec_rl.store.trained_models import fingerprint

INPUTS = "inputs.json"
CATALOGUE, DATA, LOG, REWARD_MODEL = "catalogue", "data and split", "log", "reward model"
"""What inputs are called, in the record and in messages."""
MAX_BYTES = 2**16

logger = logging.getLogger(__name__)


def inputs_of_split(split: Split) -> dict[str, str]:
    """Return the identity of the data and of how they are split."""
    return {CATALOGUE: split.catalogue.hash, DATA: split.hash}


def inputs_of_tuning(split: Split, config: TuneConfig) -> dict[str, str]:
    """Return what the scores of a tuning run depend on, beside its settings.

    Raises:
        InputError: there is no reward model where the goal needs one.
    """
    inputs = inputs_of_split(split)
    if config.reward_model is not None and "expected_ndcg" in parse_goal(config.goal).weights:
        inputs[REWARD_MODEL] = fingerprint(Path(config.reward_model))
    return inputs


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recorded_inputs(folder: Path) -> dict[str, str]:
    """Return what was recorded of a run; nothing for one that was begun before that was done.

    Raises:
        InputError: the record is damaged.
    """
    path = folder / INPUTS
    if not path.exists():
        return {}
    try:
        inputs = parse_json(LocalStorage(folder).read(INPUTS, MAX_BYTES))
        if not isinstance(inputs, dict) or not all(isinstance(value, str) for value in inputs.values()):
            raise ValueError("it is not a table of texts")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and may_pass(error):
            raise StorageError(f"{path} can't be read now: {error}; see that its storage works") from None
        raise InputError(
            f"{path} is damaged ({error}); remove it to go on without knowing whether data and models are the same"
        ) from None
    return inputs


def record_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Write down what a run depends on, in place of what was recorded before."""
    with refused_writes(str(folder / INPUTS)):
        LocalStorage(folder).replace(INPUTS, (json.dumps(inputs, indent=1) + "\n").encode())


def require_same_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Refuse to go on with a run when something that its results depend on is not what it was at its start.

    Args:
        folder: the run folder.
        inputs: what is given now; of what wasn't recorded, a line says so.

    Raises:
        InputError: names what differs, what it was and what it is.
    """
    before = recorded_inputs(folder)
    for name, now in inputs.items():
        if before.get(name, now) != now:
            raise InputError(
                f"{folder} was begun with {name} {_short(before[name])} and can't go on with {_short(now)}: results of "
                "two don't compare; give what it was begun with, or start a new run in another --run-dir"
            )
    if unknown := sorted(inputs.keys() - before.keys()):
        logger.warning(
            "%s doesn't say with which %s it was begun; those of now are taken for them", folder, ", ".join(unknown)
        )


def _short(identity: str) -> str:
    """Cut a hash to what tells two apart; the name of what is built in is shown as it is."""
    return identity[:12] if len(identity) == 64 else identity


def sources_of_rewards(goal: str) -> dict[str, str]:
    """Return the SHA-256 of the modules, imported already, behind a goal's functions of the user's own."""
    modules = {name: sys.modules.get(name.partition(":")[0]) for name in parse_goal(goal).weights if ":" in name}
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    return {f"module of {name}": file_hash(Path(file)) for name, file in files.items() if file and Path(file).is_file()}


def warn_of_changed_sources(folder: Path, sources: Mapping[str, str]) -> None:
    """Say when the code of a reward has changed: it may compute the same, or make old and new scores incomparable."""
    before = recorded_inputs(folder)
    for name, now in sources.items():
        if before.get(name, now) != now:
            logger.warning(
                "the %s has changed since %s was begun (%s, now %s); if it computes something else, scores before and "
                "after don't compare: start a new run in another --run-dir",
                name,
                folder,
                _short(before[name]),
                _short(now),
            )
