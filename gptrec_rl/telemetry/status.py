"""A running fleet at a glance, as `gptrec-rl fleet status` shows it: processes, ledger, limits, and what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from gptrec_rl.reporting.documents import duration
from gptrec_rl.reporting.grids import Grid
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import biting_limits, recent_means, standstill, waits_in_words
from gptrec_rl.telemetry.snapshot import lag_in_words, ledger_in_words
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.cache import Ledger
from gptrec_rl.transport.control import Wishes

SILENT = "silent"
HEADER = ("process", "state", "heard", "speed", "memory", "cores", "waited")
SILENT_S = 30.0
"""A process that said nothing for so long may have ended, or hang, or be busy with something long."""
GONE_S = 120.0
"""A process that said nothing for so long is not shown."""


def status(records: Iterable[MetricRecord], ledger: Ledger, wishes: Wishes, now: float) -> str:
    """Describe a fleet.

    Args:
        records: the last ones of its metrics stream.
        ledger: of its cache.
        wishes: what is wanted of it.
        now: in seconds since the epoch.
    """
    history = RunHistory()
    for record in records:
        history.add(record)
    last_said = {process: list(said)[-1] for process, said in sorted(history.recent.items())}
    lines = [_process(last, now) for last in last_said.values() if now - last.time < GONE_S]
    validated = f"; version {history.validations[-1].version} was validated last" if history.validations else ""
    facts = {
        "run": f"step {history.step:,}, {min(history.progress, 1.0):.0%} of the budget{validated}",
        "wanted": _wanted(lines, wishes),
        "lag": lag_in_words(recent_means(history, "optimiser")),
        "limits": biting_limits(history),
        "ledger": _ledger(ledger),
    }
    parts = [Grid(HEADER, lines).text(), "\n".join(f"{name:<8}{fact}" for name, fact in facts.items() if fact)]
    if (found := standstill(history)) is not None:
        parts.append(str(found))
    return "\n\n".join(parts)


def _process(last: MetricRecord, now: float) -> Sequence[str]:
    silent_s = max(now - last.time, 0.0)
    values = last.values
    speed = f"{values.get(names.SPEED_LISTS_PER_S, 0.0):,.0f} lists/s" if last.role == "generator" else ""
    if last.role == "optimiser":
        speed = f"{values.get(names.SPEED_STEPS_PER_S, 0.0):.2f} steps/s"
    return (
        f"{last.role}-{last.id}",
        _state(last, silent_s),
        f"{duration(silent_s)} ago",
        speed,
        f"{values.get(names.PROCESS_MEMORY, 0.0):,.0f} MB",
        f"{values.get(names.PROCESS_CORES, 0.0):.2f}",
        waits_in_words(values),
    )


def _state(last: MetricRecord, silent_s: float) -> str:
    if silent_s > SILENT_S:
        return SILENT
    if last.values.get(names.WAIT_RESUME, 0.0) > 0.5:
        return "paused"
    return "waits" if last.values.get(names.WAIT_SHARE, 0.0) > 0.5 else "works"


def _wanted(lines: Sequence[Sequence[str]], wishes: Wishes) -> str:
    n_there = sum(name.startswith("generator") and state != SILENT for name, state, *_ in lines)
    kept = "" if wishes.n_generators is None else f"; the Supervisor keeps {wishes.n_generators}"
    return f"{'paused' if wishes.is_paused else 'running'}; generators: {n_there} there{kept}"


def _ledger(ledger: Ledger) -> str:
    text = ledger_in_words({f"cache/{column}": float(n) for column, n in asdict(ledger).items()})
    return f"{text}; {'it balances' if ledger.balances else 'IT DOES NOT BALANCE: see `gptrec-rl doctor`'}"
