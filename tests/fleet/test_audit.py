"""Generators that do what they say pass the audit; those that don't are in quarantine within a few batches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gptrec_rl import recommender
from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Histories
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.fleet import audit
from gptrec_rl.fleet.audit import Auditor
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.manifest import Entry
from gptrec_rl.telemetry import names
from gptrec_rl.transport.messages import MessageError, RolloutBatch

if TYPE_CHECKING:
    from tests.fixtures.fleet import Fleet, MakeFleet

MakeConfig = Callable[..., TuneConfig]
MakePolicy = Callable[..., GPTRec]


class WrongTemperature(Generator):
    """Samples at 1.3 and says that it was 1."""

    def _make(self, writer: Writer, entry: Entry) -> RolloutBatch:
        return dataclasses.replace(super()._make(writer, entry), temperature=1.0)


class StaleWeights(Generator):
    """Goes on with the first weights that it had, under the version numbers of later ones."""

    first: Writer | None = None

    def _make(self, writer: Writer, entry: Entry) -> RolloutBatch:
        self.first = self.first or writer
        return super()._make(self.first, entry)


def no_mask(histories: Histories, n_items: int, *_: object) -> np.ndarray:
    return np.ones((len(histories), n_items), dtype=bool)


def mask_of_what_is_read(histories: Histories, *rest: Any) -> np.ndarray:
    """Mask the 8 items that the model reads, and none before."""
    return recommender.candidates(Histories.of([history[-8:] for history in histories]), *rest)


def auditor_of(fleet: Fleet) -> Auditor:
    return Auditor(fleet.student, fleet.config, fleet.transport)


def audited(generator: Generator, fleet: Fleet, auditor: Auditor, n: int) -> list[float]:
    """Generate and draw n batches, and return the differences that the audit found."""
    errors: list[float] = []

    def inspect(batch: RolloutBatch) -> None:
        error = auditor.examine(batch)
        errors.extend([] if error is None else [error])

    for _ in range(n):
        generator.step()
        fleet.transport.cache.draw(np.random.default_rng(0), inspect)
    return errors


@pytest.mark.parametrize(
    ("kind", "mask"),
    [
        (WrongTemperature, None),
        (Generator, no_mask),
        (Generator, mask_of_what_is_read),
    ],
    ids=["temperature", "no mask", "mask of what is read"],
)
def test_a_generator_with_other_rules_is_in_quarantine_within_a_few_batches(
    kind: type[Generator],
    mask: Callable[..., np.ndarray] | None,
    make_fleet: MakeFleet,
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = make_fleet()
    fleet.publish()
    honest = fleet.generator(0)
    faulty = kind(fleet.world, make_config({"temperature": 1.3} if mask is None else {}), fleet.transport, 1)
    auditor = auditor_of(fleet)
    audited(honest, fleet, auditor, 3)
    if mask is not None:
        monkeypatch.setattr("gptrec_rl.decoding.next_k.candidates", mask)
    audited(faulty, fleet, auditor, 5)
    assert fleet.transport.cache.quarantined() == {2}
    monkeypatch.undo()
    before = fleet.transport.cache.ledger()
    audited(faulty, fleet, auditor, 3)
    assert fleet.transport.cache.ledger().rejected == before.rejected + 3
    audited(honest, fleet, auditor, 3)
    assert fleet.transport.cache.ledger().drawn == before.drawn + 3


def test_stale_weights_under_a_new_version_are_found(
    make_fleet: MakeFleet, make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 4)
    fleet = make_fleet()
    fleet.publish()
    generator = StaleWeights(fleet.world, fleet.config, fleet.transport)
    auditor = auditor_of(fleet)
    assert max(audited(generator, fleet, auditor, 4)) < audit.TOLERANCE
    fleet.publish(make_policy(fleet.world.catalogue.n_items, history_length=8, slate_length=4, seed=1), 1)
    audited(generator, fleet, auditor, 4)
    assert fleet.transport.cache.quarantined() == {1}


@pytest.mark.parametrize(("precision", "n", "bound"), [("fp32", 20, 1e-5), ("bf16", 200, audit.TOLERANCE / 2)])
def test_an_honest_generator_passes_hundreds_of_audits(
    precision: str, n: int, bound: float, make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 1)
    fleet = make_fleet({"temperature": 0.8}, precision=precision)
    fleet.publish()
    errors = audited(fleet.generator(), fleet, auditor_of(fleet), n)
    assert len(errors) == n
    assert 0 < max(errors) < bound
    assert fleet.transport.cache.quarantined() == frozenset()


def test_the_first_batch_is_audited_and_then_one_of_so_many(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.publish()
    auditor = auditor_of(fleet)
    for index in range(2):
        generator = fleet.generator(index)
        counts = [len(audited(generator, fleet, auditor, 1)) for _ in range(2 * audit.AUDIT_EVERY)]
        assert [number for number, n in enumerate(counts, start=1) if n] == [
            1,
            audit.AUDIT_EVERY,
            2 * audit.AUDIT_EVERY,
        ]


def test_a_policy_that_is_gone_can_not_be_held_against_anybody(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.publish(version=1)  # version 0 would wait for its score
    generator = fleet.generator()
    generator.step()
    for version in range(2, 10):
        fleet.publish(version=version)
    assert fleet.transport.store.policy(1, 1) is None
    auditor = auditor_of(fleet)
    assert auditor.examine(fleet.drawn()) is None
    assert audited(generator, fleet, auditor, 1) != []  # the next one, of the newest policy, is audited instead


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda slates, b: slates + 100, "a list has item 1"),
        (lambda slates, b: np.repeat(slates[..., :1], 4, axis=-1), "a list has an item twice"),
        (lambda slates, b: np.concatenate([slates[..., :3], _seen(slates, b)], axis=-1), "an item of its history"),
        (lambda slates, b: np.tile(slates, 2)[..., :6], "lists have 6 items, and the policy's 4"),
        (lambda slates, b: slates[:, :1], "1 list a history"),
    ],
    ids=["unknown", "twice", "seen", "long", "alone"],
)
def test_lists_that_no_generator_can_have_made_are_refused(
    change: Callable[[np.ndarray, RolloutBatch], np.ndarray], problem: str, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet()
    fleet.publish()
    fleet.generator().step()
    batch = fleet.drawn()
    slates = change(batch.slates, batch).astype(np.int32)
    zeros = np.zeros(slates.shape, dtype=np.float32)
    wrong = dataclasses.replace(batch, slates=slates, log_probs=zeros, rewards=dict.fromkeys(batch.rewards, zeros))
    auditor = auditor_of(fleet)
    auditor.examine(batch)
    with pytest.raises(MessageError, match=problem):
        auditor.examine(wrong)
    assert fleet.transport.cache.quarantined() == {1}


def _seen(slates: np.ndarray, batch: RolloutBatch) -> np.ndarray:
    """Return an item of each history that has one, as the last of its lists."""
    last = [history[0] if len(history) else slates[row, 0, 3] for row, history in enumerate(batch.histories)]
    return np.broadcast_to(np.array(last)[:, None, None], (*slates.shape[:2], 1))


def test_rewards_that_the_goal_needs_have_to_be_there(make_fleet: MakeFleet, make_config: MakeConfig) -> None:
    fleet = make_fleet()
    fleet.publish()
    fleet.generator().step()
    auditor = Auditor(fleet.student, make_config(goal="ndcg=1,ild=1,pcount=1"), fleet.transport)
    assert fleet.transport.cache.draw(np.random.default_rng(0), auditor.examine) is None
    assert fleet.transport.cache.ledger().rejected == 1


def test_the_optimiser_says_once_who_is_wrong_and_a_restart_of_it_forgets_nothing(
    make_fleet: MakeFleet, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(steps=100)
    optimiser = fleet.start_optimiser()
    faulty = WrongTemperature(fleet.world, make_config({"temperature": 1.3}), fleet.transport)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            faulty.step()
        assert optimiser.step() is None
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "generator 1 is in quarantine" in warning
    assert "start it again" in warning
    optimiser.report()
    (record,), _ = fleet.transport.metrics.read()
    assert record.values[names.AUDIT_QUARANTINED] == 1
    assert record.values[names.CACHE_REJECTED] == 4
    optimiser.finish()

    again = fleet.start_optimiser("b")
    faulty.step()
    assert again.step() is None
    assert fleet.transport.cache.ledger().rejected == 5
    fleet.generator().step()  # the same one, started again
    assert again.step() is not None


@pytest.mark.parametrize("sizes", [{"n_histories": 5}, {"n_lists": 4}])
def test_a_batch_larger_than_the_configuration_s_is_rejected_and_no_fault_of_its_generator(
    sizes: dict[str, int], make_fleet: MakeFleet, make_config: MakeConfig
) -> None:
    fleet = make_fleet()
    fleet.publish()
    larger = Generator(fleet.world, make_config(sizes), fleet.transport)
    assert audited(larger, fleet, auditor_of(fleet), 1) == []
    assert fleet.transport.cache.ledger().rejected == 1
    assert fleet.transport.cache.quarantined() == frozenset()


def test_a_batch_smaller_than_the_configuration_s_is_learned_from(
    make_fleet: MakeFleet, make_config: MakeConfig
) -> None:
    fleet = make_fleet()
    fleet.publish()
    smaller = Generator(fleet.world, make_config({"n_histories": 2, "n_lists": 2}), fleet.transport)
    assert len(audited(smaller, fleet, auditor_of(fleet), 1)) == 1
