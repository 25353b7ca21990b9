from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gptrec_rl.errors import DivergedError, InputError, StorageError
from gptrec_rl.fleet.optimiser import COUNTERS_FILE
from gptrec_rl.learning.learner import Learner, UpdateStats
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.store.manifest import Origin
from gptrec_rl.telemetry import names
from gptrec_rl.transport.lease import LeaseHeldError, LeaseLostError

if TYPE_CHECKING:
    from tests.fixtures.fleet import Fleet, MakeFleet


def steps_published(fleet: Fleet) -> list[tuple[int, int]]:
    return [(entry.version, entry.step) for entry in fleet.transport.store.policies()]


def test_it_weighs_rewards_of_ones_own_without_importing_them(make_fleet: MakeFleet) -> None:
    assert make_fleet(goal="ndcg=1,no_such_module:reward=1").start_optimiser().token == 1


def test_it_publishes_the_student_before_there_is_data(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    optimiser = fleet.optimiser()
    assert fleet.transport.store.latest_policy() is None
    optimiser.start()
    read = fleet.transport.store.read_latest_policy()
    assert read is not None
    assert read[1] == fleet.student.to_files()
    assert (read[0].token, read[0].version, read[0].step) == (1, 0, 0)
    assert (read[0].catalogue_hash, read[0].split_hash) == (fleet.world.catalogue.hash, fleet.world.hash)
    assert optimiser.step() is None


def test_it_publishes_every_few_steps_and_at_the_end(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"publish_every": 3}, steps=7)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    while not optimiser.is_done:
        generator.step()
        optimiser.step()
    assert steps_published(fleet) == [(0, 0), (1, 3), (2, 6)]
    optimiser.finish()
    assert steps_published(fleet) == [(0, 0), (1, 3), (2, 6), (3, 7)]
    assert [state.step for state in fleet.transport.store.learner_states()] == [7]
    read = fleet.transport.store.read_latest_policy()
    assert read is not None
    assert read[1] == optimiser.learner.policy.to_files()


def test_finishing_right_after_a_publication_does_not_publish_the_same_policy_again(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.start_optimiser().finish()
    assert steps_published(fleet) == [(0, 0)]


def test_lags_are_those_of_the_drawn_batch(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"publish_every": 1}, steps=9)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    for _ in range(3):
        generator.step()
    for _ in range(3):
        optimiser.step()
    optimiser.report()
    (record,), _ = fleet.transport.metrics.read()
    assert record.values[names.LAG_VERSIONS] == 1.0  # all of version 0, drawn at versions 0, 1 and 2
    assert record.values[names.LAG_STEPS] == 1.0  # (0 + 1 + 2) / 3
    assert record.values[names.CACHE_GENERATED] == record.values[names.CACHE_DRAWN] == 3.0
    assert record.values[names.PROGRESS] == pytest.approx(3 / 9)


def test_a_second_optimiser_of_a_run_is_refused_until_the_first_has_finished(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    first, second = fleet.optimiser("first"), fleet.optimiser("second")
    first.start()
    with pytest.raises(LeaseHeldError, match="optimiser first is at work"):
        second.start()
    assert steps_published(fleet) == [(0, 0)]
    first.finish()
    second.start()
    assert [entry.token for entry in fleet.transport.store.policies()] == [1, 2]


def test_one_that_lost_its_lease_learns_and_publishes_nothing_more(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    paused = fleet.start_optimiser("paused")
    fleet.generator().step()
    fleet.now = 11.0
    fleet.start_optimiser("next")
    with pytest.raises(LeaseLostError):
        paused.step()
    assert paused.learner.step == 0
    assert [(entry.token, entry.version) for entry in fleet.transport.store.policies()] == [(1, 0), (2, 1)]


def test_steps_or_minutes_end_it_whichever_comes_first(make_fleet: MakeFleet) -> None:
    optimiser = make_fleet(steps=100, max_minutes=2).optimiser()
    assert optimiser.fraction == 0
    optimiser.waited(60)
    assert optimiser.fraction == 0.5  # 60 s of 120 s
    optimiser.learner.step = 75
    assert optimiser.fraction == 0.75
    assert not optimiser.is_done
    optimiser.waited(60)
    assert optimiser.is_done


def test_a_run_without_an_end_is_refused(make_fleet: MakeFleet) -> None:
    with pytest.raises(InputError, match="never ends; set one of the two"):
        make_fleet(steps=None).optimiser()


def test_after_a_stop_it_goes_on_to_the_bit_as_if_there_had_been_none(make_fleet: MakeFleet) -> None:
    def learned(folder: str, stops: bool) -> dict[str, bytes]:
        # A policy drawn again and again, so that what is drawn hangs on the random state.
        fleet = make_fleet({"publish_every": 50, "max_reuse": None, "max_staleness": None}, folder, steps=4)
        generator, optimiser = fleet.generator(), fleet.start_optimiser()
        for _ in range(5):
            generator.step()
        for step in range(4):
            if step == 2 and stops:
                optimiser.finish()
                optimiser = fleet.start_optimiser("b")
            optimiser.step()
        optimiser.finish()
        read = fleet.transport.store.read_latest_learner()
        assert read is not None
        files = read[1]
        return {**files, COUNTERS_FILE: json.loads(files[COUNTERS_FILE])["rng"].encode()}

    without, with_a_stop = learned("without", stops=False), learned("with", stops=True)
    assert without == with_a_stop


def test_time_spent_before_a_stop_counts(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(steps=None, max_minutes=1)
    first = fleet.start_optimiser("a")
    first.waited(45)
    first.finish()
    second = fleet.start_optimiser("b")
    assert second.fraction == pytest.approx(0.75)  # 45 s of 60 s


def test_what_a_killed_optimiser_did_after_its_last_state_is_done_again_and_its_batches_are_rejected(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet({"publish_every": 1}, steps=10)
    generator, killed = fleet.generator(), fleet.start_optimiser("killed")
    for step in range(3):
        generator.step()
        killed.step()
        if step == 1:
            killed.save()
    generator.step()  # with the policy of step 3, which is lost
    fleet.now = 11.0
    resumed = fleet.start_optimiser("resumed")
    assert resumed.learner.step == 2
    latest = fleet.transport.store.latest_policy()
    assert latest is not None
    assert (latest.token, latest.version, latest.step) == (2, 4, 2)
    assert resumed.step() is None
    assert fleet.transport.cache.ledger().rejected == 1
    generator.step()
    assert resumed.step() is not None
    assert resumed.learner.step == 3


def test_after_a_fallback_to_an_older_state_it_publishes_at_once_and_refuses_what_later_policies_wrote(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fleet = make_fleet({"publish_every": 1}, steps=10)
    generator, first = fleet.generator(), fleet.start_optimiser("first")
    for step in range(1, 5):
        generator.step()
        first.step()
        if step % 2 == 0:
            first.save()
    damaged = tmp_path / "store" / fleet.transport.store.learner_states()[-1].folder / "policy.model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    late = fleet.generator(1)
    late.step()  # with the policy of step 4
    fleet.now = 11.0
    fallen_back = fleet.start_optimiser("fallen back")
    latest = fleet.transport.store.latest_policy()
    assert latest is not None
    assert (latest.token, latest.step) == (2, 2)
    assert fallen_back.step() is None
    assert fleet.transport.cache.ledger().rejected == 1
    assert late.step()
    assert fallen_back.step() is not None


def test_a_policy_that_was_never_published_has_written_nothing_to_learn_from(
    make_fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(steps=10)
    optimiser = fleet.start_optimiser()
    fleet.generator().step()
    batch = fleet.drawn()
    fleet.transport.cache.put(dataclasses.replace(batch, sequence_number=2, policy_version=1))
    fleet.transport.cache.put(dataclasses.replace(batch, sequence_number=3, token=2))
    with caplog.at_level(logging.WARNING):
        assert optimiser.step() is None
    assert caplog.text.count("has a policy from the future") == 2
    assert fleet.transport.cache.ledger().rejected == 2
    assert fleet.transport.cache.quarantined() == frozenset()


def test_fed_the_same_draws_a_killed_and_resumed_run_is_the_unbroken_one_to_the_bit(make_fleet: MakeFleet) -> None:
    fleet_in = partial(make_fleet, {"publish_every": 3}, steps=20, ppo={"baseline": "value"})
    source = fleet_in("source")
    source.start_optimiser()
    generator = source.generator()
    draws = [source.drawn() for _ in range(20) if generator.step()]

    def learner_after(folder: str, killed_at: int | None) -> Learner:
        fleet = fleet_in(folder)
        optimiser = fleet.start_optimiser("first")
        for step, batch in enumerate(draws, start=1):
            optimiser.learn(batch)
            if step == killed_at:
                optimiser.save()
                optimiser.learn(draws[0])  # a step that is lost
                fleet.now = 11.0
                optimiser = fleet.start_optimiser("second")
        return optimiser.learner

    assert len(draws) == 20
    assert learner_after("unbroken", None).to_files() == learner_after("killed", 10).to_files()


def test_a_state_is_due_as_often_as_configured(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gptrec_rl.fleet.optimiser.time.monotonic", lambda: now[0])
    fleet = make_fleet({"checkpoint_every_s": 30.0})
    optimiser = fleet.start_optimiser()
    due = []
    for now[0] in (129.0, 130.0):
        due.append(optimiser.is_save_due)
    optimiser.save()
    due.append(optimiser.is_save_due)
    assert due == [False, True, False]
    assert [state.step for state in fleet.transport.store.learner_states()] == [0]


def test_divergence_stops_it_with_the_last_state_intact(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"publish_every": 100}, ppo={"max_skipped_steps": 3, "passes": 2}, steps=10)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    generator.step()
    optimiser.step()
    optimiser.save()
    good = fleet.transport.store.read_latest_learner()
    next(optimiser.learner.policy.parameters()).data.fill_(float("nan"))
    for _ in range(2):
        generator.step()
    stats = optimiser.step()
    assert stats is not None
    assert stats.n_skipped == 2
    with pytest.raises(DivergedError, match="3 losses in a row"):
        optimiser.step()
    assert fleet.transport.store.read_latest_learner() == good
    fresh = fleet.start_optimiser()
    weights = next(fresh.learner.policy.parameters()).detach().numpy()
    assert np.isfinite(weights).all()
    assert fresh.learner.step == 1


def test_a_policy_that_says_nothing_is_never_published(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"publish_every": 1})
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    generator.step()
    for weights in optimiser.learner.policy.parameters():  # finite, and their products aren't
        weights.data.fill_(1e15)
    with pytest.raises(DivergedError, match="logits are not finite at step 1"):
        optimiser.step()
    assert steps_published(fleet) == [(0, 0)]


def test_weights_that_are_not_finite_are_saved_over_nothing_before_any_loss_is(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    optimiser = fleet.start_optimiser()
    optimiser.save()
    good = fleet.transport.store.learner_states()
    optimiser.learner.step = 1
    next(optimiser.learner.policy.parameters()).data.fill_(float("inf"))
    with pytest.raises(DivergedError, match="weights are not finite at step 1"):
        optimiser.save()
    assert fleet.transport.store.learner_states() == good


@pytest.mark.parametrize("operation", ["read", "list", "replace", "write_folder"])
@pytest.mark.parametrize("nth", range(0, 24, 3))
def test_a_start_that_fails_and_is_tried_again_goes_on_from_the_last_state_and_counts_one_version(
    operation: str, nth: int, make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    first = fleet.start_optimiser()
    fleet.generator().step()
    first.step()
    first.finish()
    before = fleet.transport.store.policies(), fleet.transport.store.learner_states()
    assert steps_published(fleet) == [(0, 0), (1, 1)]
    calls, whole = itertools.count(), getattr(LocalStorage, operation)

    def fails_once(self: LocalStorage, *arguments: object) -> object:
        if next(calls) == nth:
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, *arguments)

    second = fleet.optimiser("b")
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, operation, fails_once)
        try:
            second.start()
        except StorageError:
            second.start()
    assert (second.token, second.learner.step) == (2, 1)
    assert steps_published(fleet) == [(0, 0), (1, 1), (2, 1)]
    assert (fleet.transport.store.policies()[:2], fleet.transport.store.learner_states()) == before


def test_a_version_that_the_cache_did_not_hear_of_is_announced_with_its_number(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet({"publish_every": 1})
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    generator.step()

    def away(*_: object) -> None:
        raise ConnectionError("Redis is away")

    with monkeypatch.context() as patch:
        patch.setattr(fleet.transport.cache, "advance", away)
        with pytest.raises(ConnectionError):
            optimiser.step()
    optimiser.step()
    assert steps_published(fleet) == [(0, 0), (1, 1)]
    generator.step()
    assert fleet.drawn().policy_version == 1


def test_too_small_a_sample_is_warned_of_once(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet({"publish_every": 7}, steps=9)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    sizes = [0.9, 0.3, 0.29, 0.1]
    warned = []
    for size in sizes:
        stats = UpdateStats(reward=0.0, effective_sample_size=size)
        monkeypatch.setattr(optimiser.learner, "update", lambda batch, stats=stats: stats)
        generator.step()
        optimiser.step()
        warned.append(caplog.text.count("effective sample size"))
    assert warned == [0, 0, 1, 1]
    for advice in ("0.29", "fleet.max_staleness (4)", "publish_every (7)", "generators (1)", "ppo.correction (clip)"):
        assert advice in caplog.text
    optimiser.report()
    (record,), _ = fleet.transport.metrics.read()
    assert record.values[names.PPO_EFFECTIVE_SAMPLE_SIZE] == pytest.approx(sum(sizes) / 4)


def test_waiting_is_laid_to_the_reuse_bound_only_while_what_was_drawn_is_still_fresh(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"publish_every": 100, "max_staleness": 1}, steps=100)
    generator, optimiser = fleet.generator(), fleet.start_optimiser()

    def laid_to_reuse() -> float:
        assert optimiser.step() is None
        optimiser.waited(1e9)
        optimiser.report()
        values = fleet.transport.metrics.last(1)[0].values
        assert values[names.WAIT_BATCHES] == 1
        return values.get(names.LIMIT_REUSE, 0.0)

    assert laid_to_reuse() == 0  # nothing was ever drawn
    generator.step()
    assert optimiser.step() is not None
    assert laid_to_reuse() == 1
    fleet.transport.cache.advance(token=1, version=2, step=1)
    assert laid_to_reuse() == 0  # it would be outdated by now


def test_the_share_of_new_batches_that_are_outdated_undrawn_is_reported(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"max_staleness": 1})
    generator, optimiser = fleet.generator(), fleet.start_optimiser()
    shares = []
    for newest in (0, 2, 2):
        for _ in range(2 if newest == 0 else 0):
            generator.step()
        fleet.transport.cache.advance(token=1, version=newest, step=0)
        optimiser.report()
        shares.append(fleet.transport.metrics.last(1)[0].values[names.LIMIT_STALENESS])
    assert shares == [0, 1, 0]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (COUNTERS_FILE, b'{"elapsed_s": 1.0}'),
        (COUNTERS_FILE, b"[]"),
        ("learner.json", b"{}"),
        ("learner.json", b'{"step": "first"}'),
        ("policy_optimiser.safetensors", b"no tensors"),
        ("policy_optimiser.safetensors", None),
    ],
)
def test_a_learner_state_of_another_version_is_refused_by_name(
    make_fleet: MakeFleet, file: str, content: bytes | None
) -> None:
    fleet = make_fleet(steps=2)
    fleet.start_optimiser().finish()
    read = fleet.transport.store.read_latest_learner()
    assert read is not None
    entry, files = read
    changed = {name: data for name, data in files.items() if name != file} | (
        {} if content is None else {file: content}
    )
    fleet.transport.store.save_learner(changed, Origin(1, entry.version, 1, entry.catalogue_hash, entry.split_hash, {}))
    with pytest.raises(InputError, match=r"the learner state learner/step_00000001\S* can't be resumed .* --student"):
        fleet.start_optimiser("b")
