"""What a fleet of containers starts from, made once: data, student, run folder, and the password of its Redis."""

from __future__ import annotations

import logging
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gptrec_rl.config import PretrainConfig, TuneConfig
from gptrec_rl.config_files import Change, changed_settings, read_config
from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.data.sources.table import read_table
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.rewards import rewards_of
from gptrec_rl.runs.demo import MODEL, TUNING
from gptrec_rl.runs.inputs import LOG, file_hash, record_inputs, recorded_inputs, require_same_inputs
from gptrec_rl.runs.pretrain import pretrain
from gptrec_rl.runs.run_folder import CONFIG, PREPARED, Run, prepare_run, stored_settings
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.transport.access import acl_file

TUNED = "tuned"
"""The run folder of stage 2, in that of all."""
STUDENT = "student"
"""That of stage 1."""
DATA = "data.npz"
BUILT_IN = "the built-in data"
MINUTES = 2.0

logger = logging.getLogger(__name__)


def prepare(
    run_dir: Path,
    *,
    log: Path | None = None,
    log_name: str | None = None,
    goal: str = "ndcg=1,ild=1",
    max_minutes: float | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    pretrain_minutes: float = 1.0,
    pretrain_settings: Sequence[str] = (),
) -> Run:
    """Make data, student and run folder, or what of them isn't there yet; changed settings are taken up.

    Args:
        run_dir: gets `data.npz`, `student` and the run folder `tuned`.
        log: log of interactions, or a data file.
        log_name: what the user calls it, which says what kind of file it is; None: built-in data.
        goal: of stage 2.
        max_minutes: of stage 2; 2 where `steps` isn't given either.
        steps: of stage 2.
        settings: any of stage 2, as in `--set`.
        pretrain_minutes: of stage 1.
        pretrain_settings: any of stage 1.

    Raises:
        InputError: something is wrong, or what is there was made from something else.
    """
    if max_minutes is None and steps is None:
        max_minutes = MINUTES
    asked = {"goal": goal, "max_minutes": max_minutes, "steps": steps}
    is_built_in = log_name is None
    data = _data(run_dir, log, log_name)
    config = _config(run_dir / TUNED, [{"data": str(data), **asked}, *settings], is_built_in)
    stage_1 = _stage_1(pretrain_minutes, pretrain_settings, is_built_in)
    student = None
    if (run_dir / TUNED / CONFIG).exists():
        _say_what_is_not_taken_up(run_dir / STUDENT, stage_1)
    else:
        student = pretrain(data, run_dir / STUDENT, stage_1, on_existing="resume")
    run = prepare_run(run_dir / TUNED, config, student, "resume")
    # What optimisers up to this one have said is about an earlier budget.
    token = run.memory_transport().store.highest_token()
    LocalStorage(run.folder).replace(PREPARED, str(token).encode())
    return run


def _data(run_dir: Path, log: Path | None, name: str | None) -> Path:
    """Make the data file; one that is there was made from the same log, by its content, or is refused."""
    data, origin, called = run_dir / DATA, run_dir / "data.origin", name or BUILT_IN
    if data.exists():
        made_from = origin.read_text(encoding="utf-8")
        is_gone = name is not None and log is not None and not log.is_file()
        if made_from != called and (is_gone or LOG not in recorded_inputs(run_dir)):
            raise InputError(f"{run_dir} was made from {made_from}, and not from {called}")
        if is_gone:
            logger.warning("%s is not there any more; %s, which was made from it, is kept", called, data)
            return data
        inputs = _log_inputs(log, name)
        require_same_inputs(run_dir, inputs)
        record_inputs(run_dir, inputs)
        return data
    inputs = _log_inputs(log, name)
    run_dir.mkdir(parents=True, exist_ok=True)
    origin.write_text(called, encoding="utf-8")
    record_inputs(run_dir, inputs)
    interactions = generate() if name is None or log is None else _read(log, name)
    interactions.save(data)
    logger.info("data: %s, %d users, %d items", interactions.name, interactions.n_users, interactions.catalogue.n_items)
    return data


def _log_inputs(log: Path | None, name: str | None) -> dict[str, str]:
    if name is None or log is None:
        return {LOG: BUILT_IN}
    if not log.is_file():
        raise InputError(f"DATA={name} is no file; give its path, beginning with ./ or /")
    return {LOG: file_hash(log)}


def _read(log: Path, name: str) -> Interactions:
    """Read the log under the name that the user gave it, which says what kind of file it is."""
    if name.endswith(".npz"):
        return Interactions.load(log)
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / Path(name).name
        named.symlink_to(log)
        return read_table(named)[0]


def _config(tuned: Path, settings: list[Change], is_built_in: bool) -> TuneConfig:
    """Read what is asked for; a goal that can't be computed is refused before stage 1 has taken its time."""
    before = stored_settings(tuned)
    base = {**(TUNING if is_built_in else {}), **({"run_id": before["run_id"]} if before else {})}
    config = read_config(TuneConfig, None, settings, base)
    split = Split.of(Interactions.load(Path(config.data)), config.split)
    rewards_of(config, split)
    return config


def _stage_1(minutes: float, settings: Sequence[str], is_built_in: bool) -> PretrainConfig:
    base = {"model": MODEL} if is_built_in else {}
    return read_config(PretrainConfig, None, [{"max_minutes": minutes}, *settings], base)


def _say_what_is_not_taken_up(student: Path, asked: PretrainConfig) -> None:
    """Name what was changed of stage 1 after its end: the run has its student already."""
    if not (student / CONFIG).exists():
        return
    trained = read_config(PretrainConfig, student / CONFIG)
    for name, before, now in changed_settings(trained.model_dump(), asked.model_dump()):
        logger.warning(
            "stage 1 is over, with %s = %s; that it was changed to %s has no effect: for another student, give RUN "
            "another name",
            name,
            before,
            now,
        )


def write_secrets(folder: Path, run_id: str) -> None:
    """Draw the password, unless it is there, and let it open the keys of this run."""
    password = folder / "password"
    if not password.exists():
        LocalStorage(folder).replace("password", secrets.token_hex(32).encode())
    LocalStorage(folder).replace("users.acl", acl_file(run_id, password.read_text(encoding="utf-8")).encode())
