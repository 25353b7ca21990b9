from __future__ import annotations

from collections.abc import Mapping

from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.status import GONE_S, SILENT_S, status
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.cache import Ledger
from gptrec_rl.transport.control import Wishes

NOW = 5000.0
LEDGER = Ledger(generated=10, waiting=3, drawn=6, stale=1)


def record(role: str, index: int, values: Mapping[str, float], age_s: float = 2.0) -> MetricRecord:
    return MetricRecord(role, index, 1, 40, NOW - age_s, values)


def lines(*records: MetricRecord, ledger: Ledger = LEDGER, wishes: Wishes = Wishes()) -> dict[str, list[str]]:  # noqa: B008
    text = status(records, ledger, wishes, NOW)
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_each_process_has_a_line_by_what_it_said_last() -> None:
    generator = {names.WAIT_SHARE: 0.75, names.WAIT_ROOM: 0.75, names.PROCESS_MEMORY: 312.4, names.PROCESS_CORES: 0.25}
    shown = lines(
        record("generator", 1, {"speed/lists_per_s": 7.0}, age_s=7.0),
        record("generator", 1, generator | {"speed/lists_per_s": 1234.0}),
        record("optimiser", 0, {"speed/steps_per_s": 1.25, "run/progress": 0.5}),
    )
    words = "waits 2 s ago 1,234 lists/s 312 MB 0.25 75% for room in the cache"
    assert shown["generator-1"] == words.split()
    assert shown["optimiser-0"][:6] == ["works", "2", "s", "ago", "1.25", "steps/s"]
    assert shown["run"] == ["step", "40,", "50%", "of", "the", "budget"]


def test_who_is_paused_silent_or_gone_wherever_it_runs() -> None:
    shown = lines(
        record("optimiser", 0, {names.WAIT_RESUME: 0.9, names.WAIT_SHARE: 0.9}),
        record("validator", 0, {}, age_s=SILENT_S + 1),
        record("generator", 0, {}, age_s=GONE_S + 1),
        record("generator", 1, {}),
        record("generator", 2, {}, age_s=SILENT_S + 1),
        record("generator", 1027, {}),
        wishes=Wishes(n_generators=2, is_paused=True),
    )
    assert shown["optimiser-0"][0] == "paused"
    assert shown["validator-0"][0] == "silent"
    assert [name for name in shown if name.startswith("generator")] == [f"generator-{index}" for index in (1, 2, 1027)]
    assert " ".join(shown["wanted"]) == "paused; generators: 2 there; the Supervisor keeps 2"
    assert " ".join(lines(record("generator", 1, {}))["wanted"]) == "running; generators: 1 there"


def test_the_ledger_is_said_to_balance_or_not() -> None:
    balanced = status([record("optimiser", 0, {})], LEDGER, Wishes(), NOW)
    assert "10 batches = 3 waiting + 6 drawn + 0 evicted + 1 stale + 0 rejected; 0 repeated; it balances" in balanced
    lost = status([record("optimiser", 0, {})], Ledger(generated=10, drawn=6), Wishes(), NOW)
    assert "IT DOES NOT BALANCE" in lost


def test_a_standstill_and_the_limit_that_bites_are_said() -> None:
    waits = {names.WAIT_SHARE: 1.0, names.WAIT_BATCHES: 1.0, names.LIMIT_REUSE: 1.0}
    text = status([record("optimiser", 0, waits, age_s=60.0 - 5 * i) for i in range(12)], LEDGER, Wishes(), NOW)
    assert "limits  max_reuse: the optimiser waits 100%" in text
    assert "No step for 55 s: the optimiser waits for batches; no generator has said anything" in text
