"""What is wrong with a tuning run, live or dead, in words and with a remedy, from the files in its folder alone.

One function a rule; all of them are in `RULES`. Healthy ranges and their remedies are the metric dictionary's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from gptrec_rl.config import TuneConfig
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.reporting.documents import duration
from gptrec_rl.store.checkpoints import BEST, LEARNER, POLICIES
from gptrec_rl.store.manifest import MANIFEST, CheckpointError, read_folder
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.dictionary import DICTIONARY
from gptrec_rl.telemetry.ending import End, end_of
from gptrec_rl.telemetry.folders import read_tuning_config
from gptrec_rl.telemetry.history import LONGEST_PAUSE_S, RunHistory
from gptrec_rl.telemetry.holdups import Finding, recent_means, standstill, waiting_share

ROLES = ("generator", "optimiser", "validator")
SILENT_AFTER_S = 300.0
"""As long as the Supervisor waits before it kills a silent process."""
UNVALIDATED_AFTER_S = 900.0
SETTLED_AFTER_STEPS = 100
"""Before, the ranges of a run that goes well don't hold."""
MUCH_WAITING = 0.5
IDLE_GENERATORS = 0.9
NEAR_THE_BOUND = 0.75
NOTABLE_LOSS = 0.1
N_REWARDS = 40
SURE = 4.0
"""Standard errors by which one mean reward is lower than another one for certain."""
N_VALIDATIONS = 5
MANY_ATTEMPTS = 3
LITTLE_SPACE = 1 << 30

_ATTEMPT = re.compile(r"--- (?P<name>\S+), attempt (?P<number>\d+), ")


@dataclass(frozen=True)
class Evidence:
    """What rules look at.

    Attributes:
        folder: the run folder.
        config: of the run.
        history: from its records.
        now: in seconds since the epoch.
        end: of the last attempt, if it has one.
    """

    folder: Path
    config: TuneConfig
    history: RunHistory
    now: float
    end: End | None = None

    @classmethod
    def gather(cls, folder: Path, now: float) -> Evidence:
        """Read a run folder.

        Raises:
            InputError: it is none of a tuning run, or a file in it is damaged.
        """
        config, history = read_tuning_config(folder), RunHistory.read(folder)
        return cls(folder, config, history, now, end_of(folder, history))

    def optimiser(self) -> dict[str, float]:
        """Return the means of what the optimiser said last."""
        return recent_means(self.history, "optimiser")


Rule = Callable[[Evidence], Iterator[Finding]]


def examine(evidence: Evidence) -> list[Finding]:
    """Return what all rules find."""
    return [finding for rule in RULES for finding in rule(evidence)]


def ended(evidence: Evidence) -> Iterator[Finding]:
    """A run that isn't finished, and that an error or somebody ended; or that has said nothing at all for a while."""
    history, end = evidence.history, evidence.end
    resume, where = _resume(evidence), f"at step {history.step:,} ({history.progress:.0%})"
    if end is not None and end.how == "failed":
        yield Finding(f"The run ended with an error, {where}: {end.cause}", f"Mend that; {resume}")
    elif end is not None and end.how == "stopped":
        ago = duration(evidence.now - end.time)
        yield Finding(f"The run was {end} {ago} ago, {where}", resume)
    elif history.heard_at is None:
        yield Finding("Nothing has been recorded", "If no fleet is just starting, see logs/ for why, and start one.")
    elif not history.is_finished and evidence.now - history.heard_at > LONGEST_PAUSE_S:
        yield Finding(f"The run stopped {duration(evidence.now - history.heard_at)} ago, {where}", resume)


def _resume(evidence: Evidence) -> str:
    return f"`gptrec-rl tune --run-dir {evidence.folder} --on-existing resume` goes on."


def silent(evidence: Evidence) -> Iterator[Finding]:
    """A process, or a whole role, that says nothing while others speak."""
    history = evidence.history
    if history.heard_at is None or history.is_finished:
        return
    for (role, index), records in sorted(history.recent.items()):
        silent_s = history.heard_at - records[-1].time
        if silent_s > SILENT_AFTER_S and _is_missed(history, role, index):
            yield Finding(
                f"{role}-{index} has said nothing for {duration(silent_s)} while others did",
                f"See logs/{role}-{index}.log; a stopped or hanging process may be killed, and is started again.",
            )
    for role in ROLES:
        if history.seconds > SILENT_AFTER_S and role not in {its_role for its_role, _ in history.recent}:
            yield Finding(f"No {role} has ever said anything", f"Start one, or see logs/{role}-0.log for why it can't.")


def _is_missed(history: RunHistory, role: str, index: int) -> bool:
    """Say whether a process that is silent should speak: generators may have been sent away.

    The Supervisor wants the first ones. Without it, others start and end them, and the one heard last stands for all.
    """
    if role != "generator":
        return True
    if ("supervisor", 0) in history.recent:
        return index < history.recent["supervisor", 0][-1].values[names.FLEET_GENERATORS_WANTED]
    generators = {
        its_index: said[-1].time for (its_role, its_index), said in history.recent.items() if its_role == role
    }
    return index == max(generators, key=generators.__getitem__)


def waiting(evidence: Evidence) -> Iterator[Finding]:
    """Who waits for whom, more than is good."""
    if (found := standstill(evidence.history)) is not None:
        yield found
        return
    generators, optimiser = (waiting_share(evidence.history, role) for role in ("generator", "optimiser"))
    if min(optimiser, generators) > MUCH_WAITING:
        yield Finding(
            f"Everybody waits: the optimiser {optimiser:.0%} of its time, the generators {generators:.0%}",
            "Batches are lost on their way: see whether all are stale or rejected, then stop the run and resume it.",
        )
    elif optimiser > MUCH_WAITING:
        yield Finding(
            f"The optimiser waits {optimiser:.0%} of its time for batches",
            "Run more generators (`--generators`), or let it draw each batch again (`fleet.max_reuse`).",
        )
    elif generators > IDLE_GENERATORS:
        yield Finding(
            f"The generators wait {generators:.0%} of their time for room in the cache",
            "Fewer would do, or the optimiser needs more cores or a GPU.",
        )


def lag(evidence: Evidence) -> Iterator[Finding]:
    """Batches that are nearly too old when they are drawn."""
    bound, versions = evidence.config.fleet.max_staleness, evidence.optimiser().get(names.LAG_VERSIONS, 0.0)
    if bound and versions > NEAR_THE_BOUND * bound:
        what = f"Batches are {versions:.1f} versions old when drawn, and dropped beyond {bound} (fleet.max_staleness)"
        yield Finding(what, DICTIONARY[names.LAG_VERSIONS].remedy)


def ledger(evidence: Evidence) -> Iterator[Finding]:
    """A ledger that doesn't add up, and batches made for nothing."""
    values = {
        name: value for record in evidence.history.recent["optimiser", 0] for name, value in record.values.items()
    }
    generated = values.get(names.CACHE_GENERATED, 0.0)
    columns = (names.CACHE_WAITING, names.CACHE_DRAWN, names.CACHE_EVICTED, names.CACHE_STALE, names.CACHE_REJECTED)
    total = sum(values.get(name, 0.0) for name in columns)
    if total != generated:
        what = f"The ledger doesn't add up: {generated:,.0f} batches were made and {total:,.0f} are accounted for"
        yield Finding(what, DICTIONARY[names.CACHE_GENERATED].remedy)
    for name in (names.CACHE_EVICTED, names.CACHE_STALE, names.CACHE_REJECTED):
        if values.get(name, 0.0) > NOTABLE_LOSS * generated:
            what = f"{values[name] / generated:.0%} of all batches were {name.removeprefix('cache/')} unread"
            yield Finding(what, DICTIONARY[name].remedy)


def skipped(evidence: Evidence) -> Iterator[Finding]:
    """Losses that were not finite."""
    values = evidence.history.recent["optimiser", 0]
    n = max((record.values.get(names.PPO_SKIPPED_STEPS, 0.0) for record in values), default=0.0)
    if n > 0:
        yield Finding(f"{n:,.0f} passes were skipped: loss not finite", DICTIONARY[names.PPO_SKIPPED_STEPS].remedy)


def quarantined(evidence: Evidence) -> Iterator[Finding]:
    """Generators that were wrong; whether they still run, the records don't say."""
    history = evidence.history
    if history.n_quarantined and history.quarantined_at is not None:
        ago = duration(evidence.now - history.quarantined_at)
        yield Finding(
            f"{history.n_quarantined:,.0f} generators were put into quarantine so far, the last one {ago} ago",
            DICTIONARY[names.AUDIT_QUARANTINED].remedy,
        )


def out_of_range(evidence: Evidence) -> Iterator[Finding]:
    """What the optimiser reports outside its healthy range."""
    if evidence.history.step < SETTLED_AFTER_STEPS:
        return
    for name, value in evidence.optimiser().items():
        meaning = DICTIONARY.get(name)
        if meaning is None or meaning.kind == "counter" or isinstance(meaning.healthy, str):
            continue
        if value not in meaning.healthy:
            yield Finding(f"{name} is {value:.4g}; healthy is {meaning.healthy}", meaning.remedy)


def falling_reward(evidence: Evidence) -> Iterator[Finding]:
    """A mean reward that was higher before, beyond its noise."""
    rewards = np.array([point.reward for point in evidence.history.rewards])
    if len(rewards) < N_REWARDS:
        return
    quarters = [(part.mean(), part.var() / len(part)) for part in np.array_split(rewards, 4)]
    (best, its_variance), (last, last_variance) = max(quarters), quarters[-1]
    if best - last > SURE * (its_variance + last_variance) ** 0.5:
        what = f"The mean reward has fallen: {last:.4f} in the last quarter of the run, {best:.4f} before"
        yield Finding(what, DICTIONARY[names.REWARD_MEAN].remedy)


def worse_than_the_student(evidence: Evidence) -> Iterator[Finding]:
    """Policies that validate worse than what the run started from."""
    scores = [policy.reward for policy in evidence.history.validations]
    if len(scores) > N_VALIDATIONS and max(scores[-N_VALIDATIONS:]) < scores[0]:
        yield Finding(
            f"The last {N_VALIDATIONS} policies score {max(scores[-N_VALIDATIONS:]):.4f} at best on the validation "
            f"users, less than the first one's {scores[0]:.4f}",
            DICTIONARY[names.VAL_REWARD].remedy,
        )
    elif evidence.history.is_finished and evidence.history.best_is_the_student and len(scores) > 1:
        yield Finding(
            f"No policy was better than the student, which scores {scores[0]:.4f} on the validation users",
            DICTIONARY[names.VAL_REWARD].remedy,
        )


def unvalidated(evidence: Evidence) -> Iterator[Finding]:
    """A validator that doesn't keep up."""
    history = evidence.history
    last_step, last_s = (
        (history.validations[-1].step, 60 * history.validations[-1].minutes) if history.validations else (0, 0.0)
    )
    since_s = history.seconds - last_s
    if not history.is_finished and since_s > UNVALIDATED_AFTER_S and history.step > last_step:
        yield Finding(
            f"No policy was validated for {duration(since_s)}, {history.step - last_step:,} steps",
            "See logs/validator-0.log; raise fleet.validator_share or take fewer users (split.validation_users).",
        )


def checkpoints(evidence: Evidence) -> Iterator[Finding]:
    """Checkpoints that are damaged or missing."""
    store = evidence.folder / "store"
    whole: dict[str, int] = {}
    for kind in (POLICIES, LEARNER):
        whole[kind] = 0
        for entry in sorted((store / kind).glob("[!.]*")):
            try:
                read_folder(entry)
                whole[kind] += 1
            except CheckpointError as error:
                if (entry / MANIFEST).exists():  # else a live run has just removed it
                    yield Finding(f"Damaged checkpoint: {error}", "It is passed over; remove it once the run is over.")
            except StorageError as error:
                yield Finding(f"Unreadable checkpoint: {error}", "Nothing is known of it until storage works again.")
            except InputError:
                continue  # not committed
    history, first_state_s = evidence.history, evidence.config.fleet.checkpoint_every_s + LONGEST_PAUSE_S
    if history.step and not whole[POLICIES]:
        yield Finding(f"{store} has no whole policy", "Generators can't start; resume the run, which publishes one.")
    if history.seconds > first_state_s and not history.is_finished and not whole[LEARNER]:
        yield Finding(
            f"{store} has no whole learner state", "A resumed run begins with the student again; don't stop this one."
        )
    if history.best and not (store / BEST).exists():
        yield Finding(f"{store} has no {BEST}", "The best policy is lost unless it is among the newest; validate anew.")


def crash_loops(evidence: Evidence) -> Iterator[Finding]:
    """Processes that were started again and again, with the last thing that they said."""
    for log in sorted((evidence.folder / "logs").glob("*.log")):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        attempts = [(before, found) for before, line in pairwise(["", *lines]) if (found := _ATTEMPT.match(line))]
        if attempts and int(attempts[-1][1]["number"]) >= MANY_ATTEMPTS:
            last_words, header = attempts[-1]
            yield Finding(
                f"{header['name']} was started {header['number']} times; before the last time it said: {last_words}",
                f"See {log}.",
            )


def disk(evidence: Evidence) -> Iterator[Finding]:
    """A disk that is nearly full."""
    free = shutil.disk_usage(evidence.folder).free
    if free < LITTLE_SPACE:
        yield Finding(
            f"{evidence.folder} has {free / (1 << 20):,.0f} MiB of disk left",
            "Free some: without room for a checkpoint, the optimiser waits.",
        )


RULES: Sequence[Rule] = (
    ended,
    silent,
    waiting,
    lag,
    ledger,
    skipped,
    quarantined,
    out_of_range,
    falling_reward,
    worse_than_the_student,
    unvalidated,
    checkpoints,
    crash_loops,
    disk,
)
