from __future__ import annotations

from collections.abc import Mapping

import pytest

from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import recent_means
from gptrec_rl.telemetry.snapshot import bottleneck, snapshot
from gptrec_rl.telemetry.stream import MetricRecord


def record(role: str, index: int, step: int, time: float, values: Mapping[str, float]) -> MetricRecord:
    return MetricRecord(role, index, 1, step, time, values)


def validation(step: int, reward: float, is_best: bool) -> MetricRecord:
    values = {"val/version": step / 20, "val/reward": reward, "val/is_best": is_best, "val/ndcg@10": 0.1234}
    return record("validator", 0, step, step, values | {"val/ndcg@10/error": 0.0101, "val/recall@10": 0.7})


def history_of(*records: MetricRecord) -> RunHistory:
    history = RunHistory()
    for record in records:
        history.add(record)
    return history


def test_a_snapshot_shows_the_run() -> None:
    ledger = {"generated": 1410, "waiting": 4, "drawn": 1400, "evicted": 0, "stale": 6, "rejected": 0, "repeated": 2}
    optimiser = {
        "reward/mean": 0.5,
        "reward/ndcg": 0.1,
        "ppo/approx_kl": 0.0125,
        "ppo/effective_sample_size": 0.875,
        "lag/versions": 1.25,
        "lag/steps": 18.0,
        "speed/steps_per_s": 3.0,
        "speed/lists_per_s": 384.0,
        "wait/share": 0.4,
        "run/progress": 0.25,
        **{f"cache/{name}": float(value) for name, value in ledger.items()},
    }
    history = history_of(
        record("generator", 0, 0, 0.0, {"speed/lists_per_s": 100.0, "wait/share": 0.0}),
        record("generator", 1, 0, 5.0, {"speed/lists_per_s": 300.0, "wait/share": 0.0}),
        record("optimiser", 0, 1200, 10.0, optimiser | {"reward/mean": 0.3}),
        record("optimiser", 0, 1240, 15.0, optimiser),
        validation(20, 0.6, True),
    )
    shown = snapshot(history, "runs/a  goal ndcg=1", now=50.0)
    assert shown.splitlines()[:2] == [
        "runs/a  goal ndcg=1",
        "step 1,240, 25% of the budget, 20 s, last heard of 30 s ago",
    ]
    assert "reward   mean 0.4000  ndcg 0.1000" in shown  # (0.3 + 0.5) / 2
    assert "▁█  0.3000 to 0.5000" in shown
    assert "PPO      KL 0.0125  effective sample 0.875" in shown
    assert "lag      1.2 versions, 18 steps" in shown
    assert "optimiser 3.00 steps/s (384 lists/s), 2 generators 400 lists/s" in shown
    assert "optimiser 40%, generator 0%: the generators are the bottleneck" in shown
    assert "1,410 batches = 4 waiting + 1,400 drawn + 0 evicted + 6 stale + 0 rejected; 2 repeated" in shown
    assert shown.splitlines()[-1].split() == ["1", "20", "0.3", "0.6000", "0.1234", "±", "0.0101", "best"]


def test_a_run_that_has_said_nothing() -> None:
    assert "nothing recorded yet" in snapshot(RunHistory(), "runs/a", now=0.0)


def test_a_finished_run_says_so() -> None:
    finished = history_of(record("optimiser", 0, 20, 10.0, {"run/progress": 1.01}), validation(20, 0.5, True))
    assert "step 20, 100% of the budget, 10 s, finished" in snapshot(finished, "", now=99.0)


def test_the_best_policy_is_named_when_its_row_is_not_shown() -> None:
    history = history_of(*(validation(step, 1 / step, step == 20) for step in (20, 40, 60)))
    few, everything = snapshot(history, "", 0.0, n_validations=1), snapshot(history, "", 0.0)
    assert few.splitlines()[-2:] == ["and 2 before", "best: version 1, step 20, reward 0.0500"]
    assert sum(line.endswith("best") for line in everything.splitlines()) == 1
    assert "before" not in everything


@pytest.mark.parametrize(
    ("optimiser", "generators", "words"),
    [
        (0.5, 0.0, "the generators are the bottleneck"),
        (0.0, 0.5, "the optimiser is the bottleneck"),
        (0.06, 0.0, "the generators are the bottleneck"),
        (0.0, 0.06, "the optimiser is the bottleneck"),
        (0.03, 0.04, "nobody is held up"),
    ],
)
def test_who_waits_is_not_the_bottleneck(optimiser: float, generators: float, words: str) -> None:
    history = history_of(
        record("optimiser", 0, 1, 1.0, {"wait/share": optimiser}),
        record("generator", 0, 1, 1.0, {"wait/share": generators}),
    )
    assert bottleneck(history) == words


def test_a_process_without_a_speed_stood_still_and_one_long_silent_is_gone() -> None:
    history = history_of(
        record("generator", 0, 1, 0.0, {"speed/lists_per_s": 1000.0}),
        record("generator", 1, 1, 100.0, {"speed/lists_per_s": 10.0, "reward/ndcg": 0.5}),
        record("generator", 1, 1, 105.0, {"reward/ndcg": 0.5}),
    )
    assert recent_means(history, "generator") == {"speed/lists_per_s": 5.0, "reward/ndcg": 0.5}
