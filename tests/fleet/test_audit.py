"""Generators that do what they say pass the audit; those that don't are in quarantine within a few batches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.fleet import audit
from gptrec_rl.fleet.audit import Auditor
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.models import recommender
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport import names
from gptrec_rl.transport.entry import Entry, Origin
from gptrec_rl.transport.hub import Transport
from gptrec_rl.transport.messages import MessageError, RolloutBatch

MakeConfig = Callable[..., TuneConfig]
MakeTransport = Callable[..., Transport]
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


def publish(transport: Transport, world: Split, policy: GPTRec, version: int) -> None:
    transport.store.publish_policy(
        policy.to_files(),
        Origin(
            token=1,
            version=version,
            step=version,
            catalogue_hash=world.catalogue.hash,
            split_hash=world.hash,
            config={},
        ),
    )


def audited(generator: Generator, transport: Transport, auditor: Auditor, n: int) -> list[float]:
    """Generate and draw n batches, and return the differences that the audit found."""
    errors: list[float] = []

    def inspect(batch: RolloutBatch) -> None:
        error = auditor.examine(batch)
        errors.extend([] if error is None else [error])

    for _ in range(n):
        generator.step()
        transport.cache.draw(np.random.default_rng(0), inspect)
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
    world: Split,
    student: GPTRec,
    make_config: MakeConfig,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = make_transport()
    publish(transport, world, student, 0)
    honest = Generator(world, make_config(), transport, 0)
    faulty = kind(world, make_config({"temperature": 1.3} if mask is None else {}), transport, 1)
    auditor = Auditor(student, make_config(), transport)
    audited(honest, transport, auditor, 3)
    if mask is not None:
        monkeypatch.setattr("gptrec_rl.decoding.next_k.candidates", mask)
    audited(faulty, transport, auditor, 5)
    assert transport.cache.quarantined() == {2}
    monkeypatch.undo()
    before = transport.cache.ledger()
    audited(faulty, transport, auditor, 3)
    assert transport.cache.ledger().rejected == before.rejected + 3
    audited(honest, transport, auditor, 3)
    assert transport.cache.ledger().drawn == before.drawn + 3


def test_stale_weights_under_a_new_version_are_found(
    world: Split,
    student: GPTRec,
    make_policy: MakePolicy,
    make_config: MakeConfig,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 4)
    transport = make_transport()
    publish(transport, world, student, 0)
    generator = StaleWeights(world, make_config(), transport)
    auditor = Auditor(student, make_config(), transport)
    assert max(audited(generator, transport, auditor, 4)) < audit.TOLERANCE
    publish(transport, world, make_policy(world.catalogue.n_items, history_length=8, slate_length=4, seed=1), 1)
    audited(generator, transport, auditor, 4)
    assert transport.cache.quarantined() == {1}


@pytest.mark.parametrize(("precision", "n", "bound"), [("fp32", 20, 1e-5), ("bf16", 200, audit.TOLERANCE / 2)])
def test_an_honest_generator_passes_hundreds_of_audits(
    precision: str,
    n: int,
    bound: float,
    world: Split,
    student: GPTRec,
    make_config: MakeConfig,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 1)
    transport = make_transport()
    publish(transport, world, student, 0)
    config = make_config({"temperature": 0.8}, precision=precision)
    generator = Generator(world, config, transport)
    errors = audited(generator, transport, Auditor(student, config, transport), n)
    assert len(errors) == n
    assert 0 < max(errors) < bound
    assert transport.cache.quarantined() == frozenset()


def test_the_first_batch_is_audited_and_then_one_of_so_many(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    publish(transport, world, student, 0)
    auditor = Auditor(student, make_config(), transport)
    for index in range(2):
        generator = Generator(world, make_config(), transport, index)
        counts = [len(audited(generator, transport, auditor, 1)) for _ in range(2 * audit.AUDIT_EVERY)]
        assert [number for number, n in enumerate(counts, start=1) if n] == [
            1,
            audit.AUDIT_EVERY,
            2 * audit.AUDIT_EVERY,
        ]


def test_a_policy_that_is_gone_can_not_be_held_against_anybody(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    publish(transport, world, student, 0)
    generator = Generator(world, make_config(), transport)
    generator.step()
    for version in range(1, 9):
        publish(transport, world, student, version)
    assert transport.store.policy(1, 0) is None
    auditor = Auditor(student, make_config(), transport)
    batch = transport.cache.draw(np.random.default_rng(0))
    assert batch is not None
    assert auditor.examine(batch) is None
    assert audited(generator, transport, auditor, 1) != []  # the next one, of the newest policy, is audited instead


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
    change: Callable[[np.ndarray, RolloutBatch], np.ndarray],
    problem: str,
    world: Split,
    student: GPTRec,
    make_config: MakeConfig,
    make_transport: MakeTransport,
) -> None:
    transport = make_transport()
    publish(transport, world, student, 0)
    Generator(world, make_config(), transport).step()
    batch = transport.cache.draw(np.random.default_rng(0))
    assert batch is not None
    slates = change(batch.slates, batch).astype(np.int32)
    zeros = np.zeros(slates.shape, dtype=np.float32)
    wrong = dataclasses.replace(batch, slates=slates, log_probs=zeros, rewards=dict.fromkeys(batch.rewards, zeros))
    auditor = Auditor(student, make_config(), transport)
    auditor.examine(batch)
    with pytest.raises(MessageError, match=problem):
        auditor.examine(wrong)
    assert transport.cache.quarantined() == {1}


def _seen(slates: np.ndarray, batch: RolloutBatch) -> np.ndarray:
    """Return an item of each history that has one, as the last of its lists."""
    last = [history[0] if len(history) else slates[row, 0, 3] for row, history in enumerate(batch.histories)]
    return np.broadcast_to(np.array(last)[:, None, None], (*slates.shape[:2], 1))


def test_rewards_that_the_goal_needs_have_to_be_there(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    publish(transport, world, student, 0)
    Generator(world, make_config(), transport).step()
    auditor = Auditor(student, make_config(goal="ndcg=1,ild=1,pcount=1"), transport)
    assert transport.cache.draw(np.random.default_rng(0), auditor.examine) is None
    assert transport.cache.ledger().rejected == 1


def test_the_optimiser_says_once_who_is_wrong_and_a_restart_of_it_forgets_nothing(
    world: Split,
    student: GPTRec,
    make_config: MakeConfig,
    make_transport: MakeTransport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = make_transport()
    config = make_config(steps=100)
    optimiser = Optimiser(student, world, config, transport, "a")
    optimiser.start()
    faulty = WrongTemperature(world, make_config({"temperature": 1.3}), transport)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            faulty.step()
        assert optimiser.step() is None
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "generator 1 is in quarantine" in warning
    assert "start it again" in warning
    optimiser.report()
    (record,), _ = transport.metrics.read()
    assert record.values[names.AUDIT_QUARANTINED] == 1
    assert record.values[names.CACHE_REJECTED] == 4
    optimiser.finish()

    again = Optimiser(student, world, config, transport, "b")
    again.start()
    faulty.step()
    assert again.step() is None
    assert transport.cache.ledger().rejected == 5
    Generator(world, config, transport).step()  # the same one, started again
    assert again.step() is not None
