"""The run folder of stage 2: what it holds, how it is made, and how the processes of a fleet open it."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.data import Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.rewards import rewards_of
from gptrec_rl.fleet.shared import Transport, memory_transport, redis_transport
from gptrec_rl.goals import compute_rewards, parse_goal
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.markov import PopularityRecommender
from gptrec_rl.rewards import Reward
from gptrec_rl.runs.inputs import (
    inputs_of_split,
    inputs_of_tuning,
    record_inputs,
    require_same_inputs,
    sources_of_rewards,
    warn_of_changed_sources,
)
from gptrec_rl.store.manifest import refused_writes
from gptrec_rl.store.trained_models import STORE, STUDENT, fingerprint, load_policy, read_model, save_policy
from gptrec_rl.telemetry.ending import END
from gptrec_rl.telemetry.folders import CONFIG as CONFIG
from gptrec_rl.telemetry.folders import read_tuning_config
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.messages import MAX_MESSAGE_BYTES, largest_message

PREPARED = "prepared.token"
"""The largest token of any optimiser before a fleet of containers was last prepared."""

logger = logging.getLogger(__name__)

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
            InputError: the folder is no run folder, the data can't be read, or data or reward model are others than
                the run was begun with.
        """
        config = read_tuning_config(folder)
        interactions = Interactions.load(data or Path(config.data))
        split = Split.of(interactions, config.split)
        is_there = config.reward_model is not None and Path(config.reward_model).is_dir()  # who needs it misses it
        require_same_inputs(folder, inputs_of_tuning(split, config) if is_there else inputs_of_split(split))
        return cls(folder, config, split)

    def student(self) -> GPTRec:
        """Load the policy that the run started from."""
        return load_policy(self.folder / STUDENT, self.split.catalogue)

    def memory_transport(self) -> Transport:
        """Make the transport of a fleet in this process; its checkpoints are in the run folder."""
        return memory_transport(
            self.config.run_id, self._limits, self.split.catalogue.hash, self.split.hash, self._store_root
        )

    def redis_transport(self, url: str, is_stopped: Callable[[], bool] = lambda: False) -> Transport:
        """Connect to the transport of a fleet of processes; errors as in `fleet.shared.redis_transport`."""
        return redis_transport(
            url,
            self._store_root,
            self.config.run_id,
            self._limits,
            self.split.catalogue.hash,
            self.split.hash,
            self.config.fleet.lease_s,
            is_stopped,
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
    return read_tuning_config(folder).model_dump() if (folder / CONFIG).exists() else {}


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Make a run folder and keep everybody else from working in it; an empty one goes again at the end.

    Raises:
        InputError: another process is at work in it, or it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"run folder {folder} can't be used: {error.strerror}; give another --run-dir") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is at work in {folder}; stop it first, or give another --run-dir"
            ) from None
        yield
    finally:
        os.close(lock)
        with suppress(OSError):
            folder.rmdir()


def claim_folder(folder: Path, on_existing: OnExisting) -> bool:
    """Make a run folder, or decide what happens to one that is there.

    Returns:
        Whether an existing run is to be resumed.

    Raises:
        InputError: as `require_claimable`.
    """
    require_claimable(folder, on_existing)
    folder.mkdir(parents=True, exist_ok=True)
    is_there = (folder / CONFIG).exists()
    if is_there and on_existing == "overwrite":
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return is_there and on_existing == "resume"


def require_claimable(folder: Path, on_existing: OnExisting) -> None:
    """Refuse a folder that a run can't have.

    Raises:
        InputError: the folder exists and nothing was said about it, or it is not a run folder.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / CONFIG).exists():
        raise InputError(f"{folder} exists and is not a run folder (it has no {CONFIG}); give another --run-dir")
    if on_existing == "fail":
        raise InputError(
            f"the run folder {folder} exists; continue it with --on-existing resume, replace it with --on-existing "
            "overwrite, or give another --run-dir"
        )


def prepare_run(
    folder: Path, config: TuneConfig, student: Path | None, on_existing: OnExisting, repeated: Path | None = None
) -> Run:
    """Check everything that could be wrong, then write the run folder: configuration and a copy of the student.

    Args:
        folder: where; it may exist only as `on_existing` says.
        config: what the run is to do; a run id is drawn if it has the default one.
        student: a policy to start from; a resumed run has its own.
        on_existing: fail, resume or overwrite.
        repeated: another run folder, of which this run is to be a repetition.

    Raises:
        InputError: bad data, goal, student or folder, or what is given is not what the run was begun with; nothing was
            written.
    """
    require_claimable(folder, on_existing)
    interactions = Interactions.load(Path(config.data))
    split = Split.of(interactions, config.split)
    rewards = rewards_of(config, split)
    _require_sense(config)
    resumes = on_existing == "resume" and (folder / CONFIG).exists()
    if resumes:
        _require_same_goal(folder, config)
        _say_if_another(folder / STUDENT, student)
        student = folder / STUDENT
    inputs, sources = inputs_of_tuning(split, config), sources_of_rewards(config.goal)
    if (same_as := folder if resumes else repeated) is not None:
        require_same_inputs(same_as, inputs)
        warn_of_changed_sources(same_as, sources)
    if student is None:
        raise InputError("there is no policy to start from; give one with --student, such as the folder of `pretrain`")
    k = load_policy(student, split.catalogue).slate_length
    split.require_room(k)
    _require_sendable(config, split, k, len(rewards))
    _try_rewards(rewards, split, k)
    entry, files = read_model(student)  # before the folder is claimed: the student may lie in it
    if entry.split_hash != split.hash:
        logger.warning(
            "%s was trained on another split, perhaps on these validation users, which choose the best policy; give "
            "the split.validation_users and split.seed of its training if that is not meant",
            student,
        )
    claim_folder(folder, on_existing)
    if not resumes:
        config = config.model_copy(update={"run_id": secrets.token_hex(8)})
        hashes = {"catalogue_hash": entry.catalogue_hash, "split_hash": entry.split_hash}
        save_policy(folder / STUDENT, files, step=entry.step, config=dict(entry.config), **hashes)
    (folder / END).unlink(missing_ok=True)
    record_inputs(folder, {**inputs, **sources})
    with refused_writes(str(folder / CONFIG)):
        write_config(config, folder / CONFIG)
    return Run(folder, config, split)


def _require_sense(config: TuneConfig) -> None:
    """Refuse settings that contradict each other."""
    if config.ppo.baseline == "group" and config.fleet.n_lists < 2:
        raise InputError("ppo.baseline 'group' compares the lists of a history; set fleet.n_lists to 2 or more")
    if config.ppo.kl_target is not None and config.ppo.kl_weight == 0:
        raise InputError("ppo.kl_target adapts ppo.kl_weight, which is 0; set ppo.kl_weight to where it shall start")


def _require_same_goal(folder: Path, config: TuneConfig) -> None:
    before = read_tuning_config(folder)
    if str(parse_goal(before.goal)) != str(parse_goal(config.goal)):
        raise InputError(
            f"{folder} was tuned for {before.goal} and can't go on for {config.goal}: scores of two goals don't "
            "compare; leave --goal out, or start a new run from this one with --student"
        )


def _say_if_another(own: Path, given: Path | None) -> None:
    """Say that a resumed run has a student of its own, and doesn't begin again with one that is given."""
    if given is None or not given.is_dir():
        return
    with suppress(InputError):  # it is not needed
        if fingerprint(given) != fingerprint(own):
            logger.warning("%s is not what the run began with; it goes on from its own student", given)


def _require_sendable(config: TuneConfig, split: Split, k: int, n_rewards: int) -> None:
    fleet = config.fleet
    size = largest_message(fleet.n_histories, fleet.n_lists, k, int(split.training.lengths.max()), n_rewards)
    if size > MAX_MESSAGE_BYTES / 2:
        raise InputError(
            f"batches of {fleet.n_histories} x {fleet.n_lists} lists of {k} items take up to {size / 1e6:,.0f} MB, and "
            f"{MAX_MESSAGE_BYTES / 2e6:,.0f} can be sent; lower fleet.n_histories or fleet.n_lists"
        )


def _try_rewards(rewards: Mapping[str, Reward], split: Split, k: int) -> None:
    """Compute the rewards of a few lists: what is wrong with one shall show before any work is done."""
    users = np.arange(min(2, len(split.validation.users)))
    histories, ground_truth = split.validation.histories.take(users), split.validation.ground_truth[users]
    slates = PopularityRecommender(split).recommend(histories, k).items[:, None].repeat(2, axis=1)
    compute_rewards(rewards, slates, ground_truth, histories, split.catalogue)
