"""The run folder of stage 2: what it holds, how it is made, and how the processes of a fleet open it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gptrec_rl.checkpoint import STORE, STUDENT, load_policy, read_policy, save_policy
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config, write_config
from gptrec_rl.data import Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.goals import build_rewards, parse_goal
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.hub import Transport, memory_transport, redis_transport

CONFIG = "config.toml"

OnExisting = Literal["fail", "resume", "overwrite"]


@dataclass(frozen=True)
class Run:
    """A prepared run: its folder, configuration and data."""

    folder: Path
    config: TuneConfig
    split: Split

    @classmethod
    def open(cls, folder: Path, data: Path | None = None) -> Run:
        """Read configuration and data.

        Args:
            folder: the run folder.
            data: the data file; None takes the one that the configuration names.

        Raises:
            InputError: the folder is no run folder, or the data can't be read.
        """
        if not (folder / CONFIG).exists():
            raise InputError(f"{folder} is not a run folder: it has no {CONFIG}; make one with `gptrec-rl tune`")
        config = read_config(TuneConfig, folder / CONFIG)
        interactions = Interactions.load(data or Path(config.data))
        split = Split.leave_one_out(interactions, config.split.validation_users, config.split.seed)
        return cls(folder, config, split)

    def student(self) -> GPTRec:
        """Load the policy that the run started from."""
        return load_policy(self.folder / STUDENT, self.split.catalogue)

    def memory_transport(self) -> Transport:
        """Make the transport of a fleet in this process; its checkpoints are in the run folder."""
        return memory_transport(
            self.config.run_id, self._limits, self.split.catalogue.hash, self.split.hash, self._store_root
        )

    def redis_transport(self, url: str) -> Transport:
        """Connect to the transport of a fleet of processes; errors as in `transport.hub.redis_transport`."""
        return redis_transport(
            url, self._store_root, self.config.run_id, self._limits, self.split.catalogue.hash, self.split.hash
        )

    @property
    def _store_root(self) -> str:
        return str((self.folder / STORE).resolve())

    @property
    def _limits(self) -> CacheLimits:
        fleet = self.config.fleet
        return CacheLimits(fleet.cache_batches, fleet.max_staleness, fleet.max_reuse)


def stored_settings(folder: Path) -> Mapping[str, Any]:
    """Return the settings of an existing run, for a resumed one to start from."""
    return read_config(TuneConfig, folder / CONFIG).model_dump() if (folder / CONFIG).exists() else {}


def claim_folder(folder: Path, on_existing: OnExisting) -> bool:
    """Make a run folder, or decide what happens to one that is there.

    Returns:
        Whether an existing run is to be resumed.

    Raises:
        InputError: the folder exists and nothing was said about it, or it is not a run folder.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        folder.mkdir(parents=True, exist_ok=True)
        return False
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} exists and is not a run folder (it has no {CONFIG}); give another --run-dir")
    if on_existing == "fail":
        raise InputError(
            f"the run folder {folder} exists; continue it with --on-existing resume, replace it with --on-existing "
            "overwrite, or give another --run-dir"
        )
    if on_existing == "overwrite":
        shutil.rmtree(folder)
        folder.mkdir(parents=True)
    return on_existing == "resume"


def prepare_run(folder: Path, config: TuneConfig, student: Path | None, on_existing: OnExisting) -> Run:
    """Check everything that could be wrong, then write the run folder: configuration and a copy of the student.

    Args:
        folder: where; it may exist only as `on_existing` says.
        config: what the run is to do; a run id is drawn if it has the default one.
        student: a policy to start from; a resumed run has its own.
        on_existing: fail, resume or overwrite.

    Raises:
        InputError: bad data, goal, student or folder; nothing was written.
    """
    interactions = Interactions.load(Path(config.data))
    split = Split.leave_one_out(interactions, config.split.validation_users, config.split.seed)
    build_rewards(parse_goal(config.goal), split)
    if config.ppo.baseline == "group" and config.fleet.n_lists < 2:
        raise InputError("ppo.baseline 'group' compares the lists of a history; set fleet.n_lists to 2 or more")
    if config.ppo.kl_target is not None and config.ppo.kl_weight == 0:
        raise InputError("ppo.kl_target adapts ppo.kl_weight, which is 0; set ppo.kl_weight to where it shall start")
    resumes = on_existing == "resume" and (folder / CONFIG).exists()
    if resumes:
        before = read_config(TuneConfig, folder / CONFIG)
        if str(parse_goal(before.goal)) != str(parse_goal(config.goal)):
            raise InputError(
                f"{folder} was tuned for {before.goal} and can't go on for {config.goal}: scores of two goals don't "
                "compare; leave --goal out, or start a new run from this one with --student"
            )
        student = folder / STUDENT
    if student is None:
        raise InputError("there is no policy to start from; give one with --student, such as the folder of `pretrain`")
    split.require_room(load_policy(student, split.catalogue).slate_length)
    entry, files = read_policy(student)  # before the folder is claimed: the student may lie in it
    claim_folder(folder, on_existing)
    if not resumes:
        config = config.model_copy(update={"run_id": secrets.token_hex(8)})
        save_policy(
            folder / STUDENT,
            files,
            step=entry.step,
            catalogue_hash=entry.catalogue_hash,
            split_hash=entry.split_hash,
            config=dict(entry.config),
        )
    write_config(config, folder / CONFIG)
    return Run(folder, config, split)
