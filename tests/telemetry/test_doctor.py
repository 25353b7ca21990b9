"""A made-up run that is well, and what is found when one thing about it isn't."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.errors import InputError
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import Origin
from gptrec_rl.telemetry.doctor import Evidence, examine
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.stream import MetricRecord

STARTED = 1_700_000_000.0
EVERY_S = 5.0
STEPS_A_RECORD = 10
LEDGER = {"cache/waiting": 4.0, "cache/drawn": 90.0, "cache/evicted": 2.0, "cache/stale": 2.0, "cache/rejected": 2.0}
WELL = {
    "ppo/approx_kl": 0.02,
    "ppo/clip_fraction": 0.2,
    "ppo/entropy": 3.0,
    "ppo/explained_variance": 0.5,
    "ppo/skipped_steps": 0.0,
    "lag/versions": 0.5,
    "wait/share": 0.1,
    "cache/generated": 100.0,
    **LEDGER,
}


@dataclass
class MadeUpRun:
    """A run of 60 records of each process; what tests change, and the findings.

    Attributes:
        folder: has configuration, store and logs already.
        optimiser: values of the optimiser's records beside the reward.
        rewards: its mean rewards, one a record.
        scores: the validator's, one every ten records.
        waits: of each generator and the validator.
        heard_until: place of the last record of a process, where it isn't the run's.
        n_wanted: generators that the Supervisor keeps; None: there is no Supervisor.
        progress: used share of the budget.
        idle_s: since the last record.
    """

    folder: Path
    optimiser: dict[str, float] = field(default_factory=lambda: dict(WELL))
    rewards: list[float] = field(default_factory=lambda: [0.3 + 0.002 * i + 0.01 * (i % 3) for i in range(60)])
    scores: list[float] = field(default_factory=lambda: [0.30, 0.31, 0.33, 0.32, 0.35, 0.36])
    waits: dict[str, float] = field(
        default_factory=lambda: {"generator-0": 0.3, "generator-1": 0.3, "validator-0": 0.9}
    )
    heard_until: dict[str, int] = field(default_factory=dict)
    n_wanted: int | None = 2
    progress: float = 0.5
    idle_s: float = 3.0

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(str(self.folder / "store"))

    def evidence(self) -> Evidence:
        with (self.folder / "metrics.jsonl").open("w") as file:
            for place in range(len(self.rewards)):
                for record in self._records(place):
                    if place <= self.heard_until.get(f"{record.role}-{record.id}", place):
                        file.write(json.dumps(asdict(record)) + "\n")
        return Evidence.gather(self.folder, STARTED + EVERY_S * (len(self.rewards) - 1) + self.idle_s)

    def findings(self) -> list[str]:
        return [str(finding) for finding in examine(self.evidence())]

    def finding(self) -> str:
        (found,) = self.findings()
        return found

    def _records(self, place: int) -> list[MetricRecord]:
        step, time = STEPS_A_RECORD * place, STARTED + EVERY_S * place

        def record(name: str, values: Mapping[str, float]) -> MetricRecord:
            role, _, index = name.partition("-")
            return MetricRecord(role, int(index), 1, step, time, values)

        found = [record(name, {"wait/share": share}) for name, share in self.waits.items()]
        if self.n_wanted is not None:
            found.append(record("supervisor-0", {"fleet/generators_wanted": self.n_wanted}))
        progress = {"run/progress": self.progress * (place + 1) / len(self.rewards)}
        found.append(record("optimiser-0", {**self.optimiser, **progress, "reward/mean": self.rewards[place]}))
        if place % 10 == 0 and place < 10 * len(self.scores):
            score = self.scores[place // 10]
            is_best = float(score == max(self.scores[: place // 10 + 1]))
            values = {"val/version": place / 10, "val/reward": score, "val/is_best": is_best, "val/ndcg@10": 0.1}
            found.append(record("validator-0", values))
        return found


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    made_up = MadeUpRun(tmp_path)
    write_config(TuneConfig(steps=1200), tmp_path / "config.toml")
    origin = {"token": 1, "step": 590, "catalogue_hash": "c", "split_hash": "s", "config": {}}
    best = made_up.store.publish_policy({"model": b"a policy"}, Origin(version=1, **origin))
    made_up.store.mark_best(best, 0.36)
    made_up.store.save_learner({"state": b"all of it"}, Origin(version=1, **origin))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "optimiser-0.log").write_text("--- optimiser-0, attempt 1, 2026-01-01 10:00:00\n")
    return made_up


def test_a_run_that_goes_well_has_no_findings(run: MadeUpRun) -> None:
    assert run.findings() == []


def test_a_finished_run_has_no_findings_however_old_it_is(run: MadeUpRun) -> None:
    run.progress, run.idle_s = 1.0, 1e6
    run.rewards, run.scores = run.rewards[:51], run.scores
    assert run.findings() == []


def test_a_run_that_stopped_is_to_be_resumed(run: MadeUpRun) -> None:
    run.idle_s = 7200
    assert run.finding() == (
        "The run stopped 2 h 0 min ago, at step 590 (50%). "
        f"`gptrec-rl tune --run-dir {run.folder} --on-existing resume` goes on."
    )


def end(run: MadeUpRun, error: BaseException, after_s: float = 0.0) -> None:
    """End the run with an error, so many seconds after its last record."""
    with pytest.raises(type(error)), end_recorded(run.folder):
        raise error
    file = run.folder / "end.json"
    at = STARTED + EVERY_S * (len(run.rewards) - 1) + after_s
    file.write_text(json.dumps({**json.loads(file.read_text()), "time": at, "heard_at": at}))


def test_an_error_after_which_steps_were_done_ended_no_run(run: MadeUpRun) -> None:
    end(run, InputError("a generator has other data"), after_s=-61.0)
    assert run.findings() == []


def test_the_error_that_ended_a_run_is_named(run: MadeUpRun) -> None:
    end(run, InputError("generator-0 can't work with what it was given:\n10:00 starts\nreward 'mine:odd' failed"))
    assert run.finding() == (
        "The run ended with an error, at step 590 (50%): generator-0 can't work with what it was given: ... reward "
        f"'mine:odd' failed. Mend that; `gptrec-rl tune --run-dir {run.folder} --on-existing resume` goes on."
    )


def test_a_run_that_somebody_stopped_says_so_at_once(run: MadeUpRun) -> None:
    end(run, KeyboardInterrupt())
    assert run.finding().startswith("The run was stopped by SIGINT 3 s ago, at step 590")


def test_a_finished_run_whose_best_is_the_student_says_so(run: MadeUpRun) -> None:
    run.progress, run.rewards = 1.0, run.rewards[:11]
    run.scores = [0.30, 0.29]
    assert "No policy was better than the student, which scores 0.3000" in run.finding()


def test_a_run_without_records(run: MadeUpRun) -> None:
    run.rewards = []
    assert "Nothing has been recorded" in run.finding()


def test_a_generator_that_fell_silent_is_named(run: MadeUpRun) -> None:
    run.rewards = sorted(2 * run.rewards)
    run.heard_until = {"generator-1": 40}
    assert "generator-1 has said nothing for 6 min 35 s while others did" in run.finding()  # 79 records of 5 s


@pytest.mark.parametrize("n_wanted", [1, None])
def test_a_generator_that_was_sent_away_is_not_missed(run: MadeUpRun, n_wanted: int | None) -> None:
    run.rewards = sorted(2 * run.rewards)
    run.heard_until = {"generator-1": 40}
    run.n_wanted = n_wanted
    assert run.findings() == []


def test_without_a_supervisor_the_last_of_silent_generators_is_named(run: MadeUpRun) -> None:
    run.rewards = sorted(2 * run.rewards)
    run.heard_until = {"generator-0": 40, "generator-1": 30}
    run.n_wanted = None
    assert "generator-0 has said nothing for 6 min 35 s while others did" in run.finding()


def test_a_role_that_nobody_has_heard_of_is_named(run: MadeUpRun) -> None:
    run.rewards = sorted(2 * run.rewards)
    run.waits = {"generator-0": 0.3, "validator-0": 0.9}
    run.heard_until = {"generator-0": -1}
    assert "No generator has ever said anything" in run.finding()


@pytest.mark.parametrize(
    ("optimiser", "generators", "what"),
    [
        (0.7, 0.0, "The optimiser waits 70% of its time for batches"),
        (0.0, 0.95, "The generators wait 95% of their time for room in the cache"),
        (0.7, 0.8, "Everybody waits: the optimiser 70% of its time, the generators 80%"),
    ],
)
def test_who_waits_for_whom(run: MadeUpRun, optimiser: float, generators: float, what: str) -> None:
    run.optimiser["wait/share"] = optimiser
    run.waits |= {"generator-0": generators, "generator-1": generators}
    assert run.finding().startswith(what)


def test_batches_near_the_staleness_bound(run: MadeUpRun) -> None:
    run.optimiser["lag/versions"] = 3.5  # of 4
    assert "Batches are 3.5 versions old when drawn, and dropped beyond 4" in run.finding()


def test_a_run_that_bounds_no_staleness_has_no_lag_to_find(run: MadeUpRun) -> None:
    run.optimiser["lag/versions"] = 100.0
    evidence = run.evidence()
    fleet = evidence.config.fleet.model_copy(update={"max_staleness": None})
    assert examine(replace(evidence, config=evidence.config.model_copy(update={"fleet": fleet}))) == []


def test_a_ledger_that_does_not_add_up(run: MadeUpRun) -> None:
    run.optimiser["cache/drawn"] = 89.0
    assert "100 batches were made and 99 are accounted for" in run.finding()


@pytest.mark.parametrize("column", ["evicted", "stale", "rejected"])
def test_batches_made_for_nothing(run: MadeUpRun, column: str) -> None:
    run.optimiser |= {"cache/drawn": 75.0, f"cache/{column}": 17.0}  # 15 fewer drawn
    assert f"17% of all batches were {column} unread" in run.finding()


def test_skipped_passes(run: MadeUpRun) -> None:
    run.optimiser["ppo/skipped_steps"] = 3.0
    assert "3 passes were skipped: loss not finite. Lower `ppo.policy_learning_rate`" in run.finding()


def test_generators_in_quarantine(run: MadeUpRun) -> None:
    run.optimiser["audit/quarantined"] = 2.0
    assert "2 generators were put into quarantine so far, the last one 4 min 58 s ago" in run.finding()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("ppo/approx_kl", 0.5, "ppo/approx_kl is 0.5; healthy is 0 to 0.1"),
        ("ppo/clip_fraction", 0.75, "ppo/clip_fraction is 0.75; healthy is 0 to 0.5"),
        ("ppo/entropy", 0.125, "ppo/entropy is 0.125; healthy is at least 0.5"),
        ("ppo/explained_variance", -2.0, "ppo/explained_variance is -2; healthy is 0 to 1"),
        ("ppo/effective_sample_size", 0.125, "ppo/effective_sample_size is 0.125; healthy is 0.3 to 1"),
        ("ppo/gradient_norm", math.nan, "ppo/gradient_norm is nan; healthy is 0 to 10"),
    ],
)
def test_values_outside_their_healthy_range(run: MadeUpRun, name: str, value: float, what: str) -> None:
    run.optimiser[name] = value
    assert run.finding().startswith(what)


def test_ranges_do_not_hold_in_the_first_steps(run: MadeUpRun) -> None:
    run.optimiser["ppo/explained_variance"] = -9.0
    run.rewards = run.rewards[:10]  # 90 steps
    assert run.findings() == []


def test_a_reward_that_falls(run: MadeUpRun) -> None:
    run.rewards.reverse()
    assert "The mean reward has fallen: 0.3" in run.finding()


def test_a_reward_that_stands_still_with_noise_is_no_finding(run: MadeUpRun) -> None:
    run.rewards = [0.3 + 0.05 * math.sin(1.7 * i) for i in range(60)]
    assert run.findings() == []


def test_policies_worse_than_the_first_one(run: MadeUpRun) -> None:
    run.scores = [0.36, 0.35, 0.34, 0.35, 0.33, 0.32]
    assert "The last 5 policies score 0.3500 at best" in run.finding()


def test_a_validator_that_does_not_keep_up(run: MadeUpRun) -> None:
    run.rewards = [0.3 + 0.001 * i for i in range(240)]  # 20 minutes; the last validation is of step 500
    assert "No policy was validated for 15 min 45 s, 1,890 steps" in run.finding()


def test_a_damaged_checkpoint_is_named(run: MadeUpRun) -> None:
    (run.folder / "store/learner/step_00000590-token_1/state").write_bytes(b"all of IT")
    damaged, missing = run.findings()
    assert "learner/step_00000590-token_1/state was altered: its SHA-256 is not that of its manifest" in damaged
    assert "has no whole learner state" in missing


def test_what_was_not_committed_is_no_damage(run: MadeUpRun) -> None:
    (run.folder / "store/policies/v00000002").mkdir()
    (run.folder / "store/policies/.v00000003.tmp").mkdir()
    assert run.findings() == []


def test_a_run_of_the_first_minute_needs_no_learner_state(run: MadeUpRun) -> None:
    shutil.rmtree(run.folder / "store/learner")
    assert "has no whole learner state" in run.finding()
    run.rewards = run.rewards[:13]  # a minute
    assert run.findings() == []


def test_policies_that_are_gone(run: MadeUpRun) -> None:
    shutil.rmtree(run.folder / "store/policies")
    assert "has no whole policy" in run.finding()


def test_the_best_that_is_gone(run: MadeUpRun) -> None:
    (run.folder / "store/BEST").unlink()
    assert "has no BEST" in run.finding()


def test_a_crash_loop_with_its_last_words(run: MadeUpRun) -> None:
    attempts = "".join(
        f"--- generator-1, attempt {number}, 2026-01-01 10:00:0{number}\nMemoryError: no. {number}\n\n"
        for number in range(1, 5)
    )
    (run.folder / "logs" / "generator-1.log").write_text(attempts)
    assert "generator-1 was started 4 times; before the last time it said: MemoryError: no. 3" in run.finding()


def test_a_run_resumed_since_its_crashes_is_no_crash_loop(run: MadeUpRun) -> None:
    attempts = "".join(f"--- generator-1, attempt {number}, 2026-01-01 10:00:00\n" for number in (1, 2, 3, 4, 1))
    (run.folder / "logs" / "generator-1.log").write_text(attempts)
    assert run.findings() == []


def test_a_disk_that_is_nearly_full(run: MadeUpRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=300 << 20))
    found = run.finding()
    assert "has 300 MiB of disk left" in found
    assert "the optimiser waits" in found


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        Evidence.gather(tmp_path, STARTED)
