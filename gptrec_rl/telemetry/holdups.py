"""What holds a fleet up: who waits for what, which limit of the cache bites, and whether everybody waits for everybody.

In words, from the metrics stream alone, for `watch`, `doctor`, `fleet status`, the Supervisor and the exporter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gptrec_rl.reporting.documents import duration
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.dictionary import describe
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.stream import MetricRecord

ACTIVE_S = 60.0
"""A process counts while its last record is no older than this before the run's last one."""
NOTABLE = 0.05
"""Share below which waiting, or a limit, is nothing to speak of."""
STANDSTILL_S = 45.0
"""Time without a step after which an optimiser that does nothing but wait is said to stand still."""
MOSTLY = 0.5

logger = logging.getLogger(__name__)

_WAITING_FOR = {
    names.WAIT_POLICY: "a policy",
    names.WAIT_ROOM: "room in the cache",
    names.WAIT_BATCHES: "batches",
    names.WAIT_TURN: "its turn",
    names.WAIT_DISK: "room on the disk",
    names.WAIT_RESUME: "`fleet resume`",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        what: with its numbers.
        remedy: what to do.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


def active(history: RunHistory, role: str) -> list[Sequence[MetricRecord]]:
    """Return the recent records of each process of a role that is at work."""
    heard_at = history.heard_at or 0.0
    return [
        list(records)
        for (its_role, _), records in history.recent.items()
        if its_role == role and records[-1].time >= heard_at - ACTIVE_S
    ]


def recent_means(history: RunHistory, role: str) -> dict[str, float]:
    """Return the means of what the processes of a role said in about the last minute; a rate not named is 0."""
    records = [record for process in active(history, role) for record in process]
    named = {name for record in records for name in record.values}
    means = {}
    for name in sorted(named):
        found = describe(name)
        is_rate = found is not None and found.meaning.kind == "rate"
        values = [record.values.get(name, 0.0) for record in records if is_rate or name in record.values]
        means[name] = sum(values) / len(values)
    return means


def waiting_share(history: RunHistory, role: str) -> float:
    """Return the mean share of their time that the processes of a role waited for others; a pause isn't counted."""
    means = recent_means(history, role)
    return means.get(names.WAIT_SHARE, 0.0) - means.get(names.WAIT_RESUME, 0.0)


def waits_in_words(values: Mapping[str, float]) -> str:
    """Say what a process waited for, and for which share of its time, the longest first; "" for hardly any time."""
    shares = {what: values.get(name, 0.0) for name, what in _WAITING_FOR.items()}
    notable = sorted((what for what, share in shares.items() if share >= NOTABLE), key=lambda what: -shares[what])
    return ", ".join(f"{shares[what]:.0%} for {what}" for what in notable)


def biting_limits(history: RunHistory) -> str:
    """Say in words which of the cache's three limits holds the fleet up, the tightest first."""
    generators, optimiser = recent_means(history, "generator"), recent_means(history, "optimiser")
    sentences = {
        f"pacing: generators wait {{:.0%}} of their time for room ({names.LIMIT_PACING})": generators.get(
            names.LIMIT_PACING, 0.0
        ),
        f"max_reuse: the optimiser waits {{:.0%}} of its time, all batches used up ({names.LIMIT_REUSE})": (
            optimiser.get(names.LIMIT_REUSE, 0.0)
        ),
        f"max_staleness: {{:.0%}} of the batches are outdated undrawn ({names.LIMIT_STALENESS})": optimiser.get(
            names.LIMIT_STALENESS, 0.0
        ),
        f"max_staleness: generators have only outdated policies {{:.0%}} of their time ({names.LIMIT_STALENESS})": (
            generators.get(names.LIMIT_STALENESS, 0.0)
        ),
    }
    biting = sorted((share, sentence) for sentence, share in sentences.items() if share >= NOTABLE)
    return "; ".join(sentence.format(share) for share, sentence in reversed(biting)) or "none bites"


def standstill(history: RunHistory) -> Finding | None:
    """Say who waits for whom when the optimiser is alive, waits for batches, and has made no step for a while."""
    since_s = (history.heard_at or 0.0) - (history.stepped_at or 0.0)
    optimiser = active(history, "optimiser")
    is_waiting = bool(optimiser) and optimiser[0][-1].values.get(names.WAIT_BATCHES, 0.0) > MOSTLY
    if history.is_finished or not is_waiting or since_s < STANDSTILL_S:
        return None
    edge, remedy = _why_no_batches(history, optimiser[0])
    return Finding(f"No step for {duration(since_s)}: the optimiser waits for batches; {edge}", remedy)


class Watchdog:
    """Says in the log once, each time, that everybody waits for everybody.

    Args:
        history: of the run; whoever has it adds records.
    """

    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self._found: Finding | None = None

    def look(self) -> None:
        """Look at what the history has now."""
        before, self._found = self._found, standstill(self._history)
        if self._found is not None and before is None:
            logger.warning("%s", self._found)


def _why_no_batches(history: RunHistory, optimiser: Sequence[MetricRecord]) -> tuple[str, str]:
    """Return what the generators do meanwhile, and the remedy."""
    first, last = optimiser[0].values, optimiser[-1].values
    n_made, n_stale, n_rejected = (
        last.get(name, 0.0) - first.get(name, 0.0)
        for name in (names.CACHE_GENERATED, names.CACHE_STALE, names.CACHE_REJECTED)
    )
    generators = recent_means(history, "generator")
    if not generators:
        return (
            "no generator has said anything",
            "See logs/generator-*.log for what ends them (a user, an item, a reward of your own), or start some.",
        )
    if n_made and n_rejected > MOSTLY * n_made:
        return "all that the generators send is rejected", "logs/optimiser-0.log says why."
    if n_made and n_stale > MOSTLY * n_made:
        newest = max(records[-1].step for records in active(history, "generator"))
        return (
            f"all that the generators send is outdated: their newest policy is of step {newest:,}",
            f"They can't read that of step {history.step:,}: see logs/generator-*.log and the checkpoint store.",
        )
    if generators.get(names.WAIT_ROOM, 0.0) > MOSTLY:
        n_waiting = last.get(names.CACHE_WAITING, 0.0)
        return (
            f"the generators wait for room in the cache, which counts {n_waiting:,.0f} batches that nobody can draw",
            "Redis has lost batches: stop the run, remove its keys (of an embedded Redis: the folder redis/ of the "
            "run), and resume it from its checkpoints.",
        )
    if generators.get(names.WAIT_POLICY, 0.0) > MOSTLY:
        return (
            "the generators wait for a policy that is fresh enough",
            "They can't read the newest: see logs/generator-*.log and the checkpoint store.",
        )
    return (
        "the generators are at work and send nothing",
        "A batch may just take long; else see logs/generator-*.log for a user or a reward of your own that they are "
        "stuck at.",
    )
