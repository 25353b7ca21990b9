from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.telemetry.history import RunFollower, RunHistory
from gptrec_rl.telemetry.stream import MetricRecord


def optimiser(token: int, step: int, time: float, values: Mapping[str, float] | None = None) -> MetricRecord:
    return MetricRecord("optimiser", 0, token, step, time, values or {"reward/mean": step / 100, "run/progress": 0.5})


def validator(token: int, step: int, time: float, reward: float, is_best: bool) -> MetricRecord:
    values = {
        "val/version": step / 10,
        "val/reward": reward,
        "val/is_best": float(is_best),
        "val/seconds": 2.0,
        "val/ndcg@10": 0.15,
        "val/ndcg@10/error": 0.01,
        "val/npcount@10": 0.4,
    }
    return MetricRecord("validator", 0, token, step, time, values)


def history_of(*records: MetricRecord) -> RunHistory:
    history = RunHistory()
    for record in records:
        history.add(record)
    return history


def write(run_dir: Path, records: list[MetricRecord], tail: str = "") -> None:
    lines = [json.dumps(asdict(record)) + "\n" for record in records]
    (run_dir / "metrics.jsonl").write_text("".join(lines) + tail)


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    write(tmp_path, [optimiser(1, 10, 100.0), validator(1, 10, 130.0, 0.5, True), validator(1, 20, 160.0, 0.4, False)])
    history = RunHistory.read(tmp_path)
    assert [(policy.version, policy.step, policy.reward) for policy in history.validations] == [
        (1, 10, 0.5),
        (2, 20, 0.4),
    ]
    assert [policy.minutes for policy in history.validations] == [0.5, 1.0]  # 30 s and 60 s after the first record
    assert history.validations[0].values == {"NDCG@10": 0.15, "nPCOUNT@10": 0.4}
    assert history.validations[0].errors == {"NDCG@10": 0.01}
    assert history.best == history.validations[0]
    assert (history.step, history.progress, history.seconds) == (10, 0.5, 60.0)


def test_a_run_without_records_has_no_history(tmp_path: Path) -> None:
    history = RunHistory.read(tmp_path)
    assert (history.validations, history.best, history.heard_at, history.is_finished) == ([], None, None, False)


def test_steps_that_were_lost_are_left_out() -> None:
    history = history_of(
        *(optimiser(1, step, step) for step in (10, 20, 30)),
        *(validator(1, step, step, 0.1 * step, True) for step in (10, 20, 30)),
        optimiser(2, 20, 40.0),
        validator(2, 25, 41.0, 0.3, False),
    )
    assert [(point.token, point.step) for point in history.rewards] == [(1, 10), (2, 20)]
    assert [(policy.token, policy.step) for policy in history.validations] == [(1, 10), (1, 20), (2, 25)]
    assert history.best is not None
    assert history.best.step == 30  # what the store's BEST still names


def test_a_score_of_an_optimiser_that_was_replaced_comes_too_late() -> None:
    history = history_of(validator(2, 10, 1.0, 0.5, True), validator(1, 30, 2.0, 0.4, False))
    assert [policy.token for policy in history.validations] == [2]


def test_the_last_of_two_scores_of_one_step_counts() -> None:
    history = history_of(validator(1, 10, 1.0, 0.5, True), validator(1, 10, 2.0, 0.6, False))
    assert [policy.reward for policy in history.validations] == [0.6]


def test_time_in_which_the_run_had_stopped_does_not_count() -> None:
    history = history_of(*(optimiser(1, 1, time) for time in (0.0, 10.0, 9.0, 10_000.0, 10_005.0)))
    assert history.seconds == 10 + 60 + 5  # a pause counts as a minute at most; a clock that goes back, not at all


def test_a_run_is_finished_when_the_last_policy_is_scored() -> None:
    records = [validator(1, 90, 1.0, 0.5, True), optimiser(1, 100, 2.0, {"run/progress": 1.0})]
    assert not history_of(*records).is_finished
    assert history_of(*records, validator(1, 100, 3.0, 0.5, True)).is_finished


def test_a_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    records = [optimiser(1, 1, 1.0), optimiser(1, 2, 2.0)]
    follower = RunFollower(tmp_path)
    assert follower.refresh().step == 0
    write(tmp_path, records[:1], tail='{"role": "opt')
    assert follower.refresh().step == 1
    assert follower.refresh().seconds == 0.0
    write(tmp_path, records)
    assert (follower.refresh().step, follower.refresh().seconds) == (2, 1.0)


def test_a_file_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    records = [optimiser(1, 1, 1.0), validator(1, 1, 2.0, 0.5, True), optimiser(1, 2, 3.0)]
    follower = RunFollower(tmp_path)
    write(tmp_path, records)
    assert follower.refresh().step == 2
    write(tmp_path, records[:2])
    assert follower.refresh().step == 1
    write(tmp_path, records)
    assert vars(follower.refresh()) == vars(RunHistory.read(tmp_path))


@pytest.mark.parametrize("line", ["garbage", "[]", '{"role": "optimiser"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, [optimiser(1, 1, 1.0)], tail=line + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2 is not a metrics record"):
        RunHistory.read(tmp_path)


def test_the_time_of_the_last_quarantine_is_kept() -> None:
    counts = [(100.0, 0.0), (105.0, 1.0), (110.0, 1.0)]
    history = history_of(*(optimiser(1, 10, time, {"audit/quarantined": n}) for time, n in counts))
    assert (history.n_quarantined, history.quarantined_at) == (1.0, 105.0)


def test_a_sign_of_life_says_when_and_nothing_else() -> None:
    history = RunHistory()
    history.add(MetricRecord("optimiser", 0, 1, 20, 100.0, {"reward/mean": 0.5, "speed/steps_per_s": 2.0}))
    for beat in range(20):
        history.add(MetricRecord("optimiser", 0, 1, 20, 105.0 + beat, {}))
    (said,) = history.recent["optimiser", 0]
    assert said.values == {"reward/mean": 0.5, "speed/steps_per_s": 2.0}
    assert said.time == history.heard_at == 124.0
    assert history.stepped_at == 100.0
