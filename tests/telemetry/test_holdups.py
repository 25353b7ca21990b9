"""Who waits for whom: in words from made-up records, and a fleet in this process that is brought to a standstill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.data.sources import synthetic
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.shared import memory_transport
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import STANDSTILL_S, biting_limits, standstill, waiting_share, waits_in_words
from gptrec_rl.telemetry.stream import START, MetricRecord
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.memory_cache import MemoryCache

REPORT_S = 5.0
CAPACITY = 3


def history_of(*said: tuple[str, Mapping[str, float]]) -> RunHistory:
    history = RunHistory()
    for role, values in said:
        history.add(MetricRecord(role, 0, 1, 10, 100.0, values))
    return history


def test_waits_are_named_the_longest_first_and_short_ones_left_out() -> None:
    values = {names.WAIT_POLICY: 0.25, names.WAIT_ROOM: 0.5, names.WAIT_TURN: 0.04, names.WAIT_SHARE: 0.79}
    assert waits_in_words(values) == "50% for room in the cache, 25% for a policy"
    assert waits_in_words({}) == ""


def test_a_pause_is_no_waiting_for_others() -> None:
    history = history_of(("generator", {names.WAIT_SHARE: 0.75, names.WAIT_RESUME: 0.5}))
    assert waiting_share(history, "generator") == 0.25


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("generator", {names.LIMIT_PACING: 0.5}), "pacing: generators wait 50%"),
        (("optimiser", {names.LIMIT_REUSE: 0.25}), "max_reuse: the optimiser waits 25%"),
        (("optimiser", {names.LIMIT_STALENESS: 0.125}), "max_staleness: 12% of the batches are outdated"),
        (("generator", {names.LIMIT_STALENESS: 0.75}), "max_staleness: generators have only outdated policies 75%"),
        (("generator", {names.LIMIT_PACING: 0.04}), "none bites"),
    ],
)
def test_the_limit_that_bites_is_said(said: tuple[str, Mapping[str, float]], words: str) -> None:
    assert biting_limits(history_of(said)).startswith(words)


def test_a_limit_that_bit_in_one_of_two_reports_counts_half_and_the_tightest_is_first() -> None:
    history = history_of(
        ("generator", {names.LIMIT_PACING: 0.5}),
        ("generator", {names.PROCESS_CORES: 1.0}),
        ("optimiser", {names.LIMIT_REUSE: 0.75}),
    )
    first, second = biting_limits(history).split("; ")
    assert first.startswith("max_reuse: the optimiser waits 75%")
    assert second.startswith("pacing: generators wait 25%")


class Fleet:
    """One generator and the optimiser, called in turn; each round they report, and five seconds pass."""

    def __init__(self, world: Split, student: GPTRec, monkeypatch: pytest.MonkeyPatch) -> None:
        times = count(1000.0, REPORT_S / 2)
        monkeypatch.setattr("gptrec_rl.telemetry.reporter.time.time", lambda: next(times))
        sizes = {"n_histories": 4, "n_lists": 3, "publish_every": 2, "cache_batches": CAPACITY}
        config = TuneConfig.model_validate({"steps": 1000, "precision": "fp32", "fleet": sizes})
        limits = CacheLimits(capacity=CAPACITY, max_staleness=1, max_reuse=1)
        self.transport = memory_transport("run", limits, world.catalogue.hash, world.hash, f"memory://{id(self)}")
        self.generator = Generator(world, config, self.transport)
        self.optimiser = Optimiser(student, world, config, self.transport, "test")
        self.optimiser.start()
        self.history = RunHistory()
        self.generates: Callable[[], bool] = self.generator.step
        self.cursor = START

    def rounds(self, n: int, generator_reports: bool = True) -> None:
        for _ in range(n):
            if not self.generates():
                self.generator.waited(REPORT_S)
            if self.optimiser.step() is None:
                self.optimiser.waited(REPORT_S)
            if generator_reports:
                self.generator.report()
            self.optimiser.report()
            records, self.cursor = self.transport.metrics.read(self.cursor)
            for record in records:
                self.history.add(record)

    def finding(self) -> str:
        return str(standstill(self.history))


@pytest.fixture(scope="module")
def world() -> Split:
    return Split.of(synthetic.generate(n_users=60, n_items=48, mean_length=12), SplitConfig(validation_users=12))


@pytest.fixture
def fleet(world: Split, make_policy: Callable[..., GPTRec], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(world, make_policy(world.catalogue.n_items, history_length=8, slate_length=4), monkeypatch)


N_ROUNDS = round(STANDSTILL_S / REPORT_S) + 2


def test_a_fleet_that_makes_steps_does_not_stand_still(fleet: Fleet) -> None:
    fleet.rounds(N_ROUNDS)
    assert fleet.history.step == N_ROUNDS
    assert standstill(fleet.history) is None


def test_batches_that_are_all_outdated_are_named_with_the_step_of_their_policy(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.rounds(2)
    # The generator sees neither newer policies nor that its own is outdated.
    monkeypatch.setattr(fleet.generator, "_refresh", lambda: None)
    monkeypatch.setattr(fleet.transport.cache, "is_stale", lambda version: False)
    cache = fleet.transport.cache
    assert isinstance(cache, MemoryCache)
    monkeypatch.setattr(cache, "put_encoded", lambda head, data: _put_stale(cache))
    fleet.rounds(N_ROUNDS)
    assert "the optimiser waits for batches; all that the generators send is outdated" in fleet.finding()
    assert "their newest policy is of step 0" in fleet.finding()


def _put_stale(cache: MemoryCache) -> bool:
    cache._counts["generated"] += 1
    cache._counts["stale"] += 1
    return True


def test_a_generator_that_cant_read_newer_policies_waits_for_one(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.rounds(2)
    monkeypatch.setattr(fleet.generator, "_refresh", lambda: None)
    fleet.rounds(6 + N_ROUNDS)
    assert "the generators wait for a policy that is fresh enough" in fleet.finding()
    assert "max_staleness: generators have only outdated policies" in biting_limits(fleet.history)


def test_a_poison_user_at_whom_generators_end_before_they_report(fleet: Fleet) -> None:
    fleet.rounds(1)
    fleet.generates = lambda: True  # killed at each batch, and started again
    fleet.rounds(CAPACITY + 12 + N_ROUNDS, generator_reports=False)
    assert "no generator has said anything. See logs/generator-*.log for what ends them (a user" in fleet.finding()


def test_a_poison_user_at_whom_a_generator_is_stuck(fleet: Fleet) -> None:
    fleet.rounds(1)
    fleet.generates = lambda: True
    fleet.rounds(CAPACITY + N_ROUNDS)
    assert "the generators are at work and send nothing" in fleet.finding()


def test_a_cache_that_counts_batches_which_nobody_can_draw(fleet: Fleet) -> None:
    fleet.rounds(2)
    cache = fleet.transport.cache
    assert isinstance(cache, MemoryCache)
    cache._entries.clear()
    cache._counts["waiting"] = CAPACITY
    fleet.rounds(N_ROUNDS)
    assert "the generators wait for room in the cache, which counts 3 batches that nobody can draw" in fleet.finding()


def test_a_paused_fleet_does_not_stand_still(fleet: Fleet) -> None:
    fleet.rounds(1)
    fleet.generates = lambda: True
    fleet.rounds(CAPACITY + N_ROUNDS)
    assert standstill(fleet.history) is not None
    fleet.optimiser.reporter.waited(REPORT_S, names.WAIT_RESUME)
    fleet.optimiser.report()
    fleet.history.add(fleet.transport.metrics.last(1)[0])
    assert standstill(fleet.history) is None
