from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gptrec_rl.config import PpoConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.goals import build_rewards, parse_goal
from gptrec_rl.learning.learner import Learner
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.files import LocalStorage
from gptrec_rl.telemetry import names
from gptrec_rl.transport.control import MAX_GENERATORS
from gptrec_rl.transport.messages import RolloutBatch

if TYPE_CHECKING:
    from tests.fixtures.fleet import MakeFleet


def test_it_waits_for_a_policy_and_for_room_in_the_cache(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"cache_batches": 2})
    generator = fleet.generator()
    assert not generator.step()
    assert fleet.transport.cache.ledger().generated == 0
    fleet.publish()
    assert [generator.step() for _ in range(4)] == [True, True, False, False]
    fleet.drawn()
    assert [generator.step() for _ in range(2)] == [True, False]
    assert fleet.transport.cache.ledger().generated == 3


def test_a_batch_that_others_left_no_room_for_is_kept_and_pushes_none_out(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet({"cache_batches": 2})
    quick, slow = (fleet.generator(index) for index in range(2))
    fleet.publish()
    n_made = 0
    make = Generator._make

    def make_while_others_are_quicker(generator: Generator, *origin: Any) -> RolloutBatch:
        nonlocal n_made
        if generator is slow:
            n_made += 1
            assert [quick.step() for _ in range(3)] == [True, True, False]
        return make(generator, *origin)

    monkeypatch.setattr(Generator, "_make", make_while_others_are_quicker)
    assert [slow.step() for _ in range(2)] == [False, False]
    first = fleet.drawn()
    assert slow.step()
    assert n_made == 1
    assert {fleet.drawn().generator_id for _ in range(2)} == {first.generator_id, first.generator_id + 1}
    assert fleet.transport.cache.ledger().evicted == 0


def test_a_batch_says_where_it_comes_from(make_fleet: MakeFleet, world: Split) -> None:
    fleet = make_fleet({"temperature": 0.7})
    generator = fleet.generator()
    fleet.publish(version=3, token=5)
    generator.step()
    batch = fleet.drawn()
    assert (batch.token, batch.policy_version, batch.learner_step, batch.temperature) == (5, 3, 30, 0.7)
    assert (batch.run_id, batch.catalogue_hash, batch.split_hash) == ("run", world.catalogue.hash, world.hash)
    assert batch.slates.shape == batch.log_probs.shape == (4, 3, 4)


def test_ground_truth_follows_its_whole_history_and_no_list_repeats_or_shows_what_was_seen(
    make_fleet: MakeFleet, world: Split
) -> None:
    fleet = make_fleet({"n_histories": 64, "cache_batches": 1})
    generator = fleet.generator()
    fleet.publish()
    generator.step()
    batch = fleet.drawn()
    of_training = {tuple(world.training[int(user)].tolist()) for user in world.training_users}
    prefixes = {history[: cut + 1] for history in of_training for cut in range(len(history))}
    lengths = batch.histories.lengths
    assert lengths.max() > fleet.student.history_length
    for history, truth, slates in zip(batch.histories, batch.ground_truth, batch.slates, strict=True):
        assert (*history.tolist(), int(truth)) in prefixes
        for slate in slates:
            assert len({*history.tolist(), *slate.tolist()}) == len(history) + len(slate)
            assert slate.min() >= 1
            assert slate.max() <= world.catalogue.n_items


def test_rewards_are_shipped_without_their_weights(make_fleet: MakeFleet, world: Split) -> None:
    fleet = make_fleet({"n_histories": 32}, goal="ndcg=3,pcount=0.125")
    generator = fleet.generator()
    fleet.publish()
    generator.step()
    batch = fleet.drawn()
    assert set(batch.rewards) == {"ndcg", "pcount"}
    for name, reward in build_rewards(parse_goal("ndcg=1,pcount=1"), world).items():
        expected = reward(batch.slates, batch.ground_truth, batch.histories, world.catalogue)
        np.testing.assert_allclose(batch.rewards[name], expected, rtol=1e-6)
        assert np.any(batch.rewards[name] != 0)


def test_the_newest_policy_is_taken_up(make_fleet: MakeFleet, make_policy: Callable[..., GPTRec]) -> None:
    fleet = make_fleet()
    generator = fleet.generator()
    other = make_policy(fleet.world.catalogue.n_items, 8, 4, seed=1)
    versions = []
    for version, policy in enumerate((fleet.student, other)):
        fleet.publish(policy, version)
        generator.step()
        batch = fleet.drawn()
        versions.append(batch.policy_version)
        learner = Learner(policy, parse_goal("ndcg=1,ild=1"), PpoConfig(passes=1), "fp32")
        assert learner.update(batch).ratio_error < 1e-4
    assert versions == [0, 1]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_at_lag_0_every_ratio_is_1_through_generator_and_cache(temperature: float, make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"n_histories": 16, "temperature": temperature})
    generator = fleet.generator()
    fleet.publish()
    generator.step()
    batch = fleet.drawn()
    assert (batch.histories.lengths > fleet.student.history_length).any()
    learner = Learner(fleet.student, parse_goal("ndcg=1,ild=1"), PpoConfig(passes=1), "fp32")
    stats = learner.update(batch)
    assert stats.ratio_error < 1e-4
    assert stats.clip_fraction == 0
    assert learner.update(batch).ratio_error > 1e-3  # the policy has moved, so the first assertion can fail


def test_no_two_generators_and_no_restarted_one_sample_the_same_lists(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"cache_batches": 20})
    fleet.publish()
    made = []
    for index in (0, 1, 0):
        generator = fleet.generator(index)
        for _ in range(2):
            generator.step()
            made.append(fleet.drawn())
    assert len({batch.slates.tobytes() for batch in made}) == len(made)
    assert len({batch.histories.values.tobytes() for batch in made}) == len(made)


def test_a_resumed_run_whose_ids_start_again_samples_other_lists(make_fleet: MakeFleet) -> None:
    made = []
    for token in (1, 2):
        fleet = make_fleet()  # ids and cache are new, the checkpoints are the same
        fleet.publish(version=token, token=token)
        fleet.generator().step()
        made.append(fleet.drawn())
    assert made[0].generator_id == made[1].generator_id
    assert made[0].histories.values.tobytes() != made[1].histories.values.tobytes()


def test_a_damaged_newest_policy_leaves_the_one_before_and_is_reported_once(
    make_fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet()
    generator = fleet.generator()
    fleet.publish(version=0)
    fleet.publish(version=1)
    weights = f"{fleet.transport.store.root}/policies/v00000001-token_1/model.safetensors"
    with open(weights, "r+b") as file:
        file.write(b"altered!")
    for _ in range(3):
        assert generator.step()
    assert fleet.drawn().policy_version == 0
    assert caplog.text.count("was altered") == 1


def test_its_report_names_every_reward_and_its_speed(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(goal="ndcg=2,ild=1")
    generator = fleet.generator(index=4)
    fleet.publish(version=2)
    generator.step()
    generator.report()
    (record,), _ = fleet.transport.metrics.read()
    batch = fleet.drawn()
    assert (record.role, record.id, record.token, record.step) == ("generator", 4, 1, 20)
    assert record.values[names.REWARD_NDCG] == pytest.approx(batch.rewards["ndcg"].sum() / 12)  # 4 x 3 lists
    assert record.values[names.REWARD_ILD] == pytest.approx(batch.rewards["ild"].sum() / 12, rel=1e-5)
    assert record.values[names.SPEED_LISTS_PER_S] > 0


def test_a_goal_that_is_not_defined_is_refused_before_anything_is_made(make_fleet: MakeFleet) -> None:
    with pytest.raises(InputError, match="unknown reward 'ndgc'; did you mean 'ndcg'"):
        make_fleet(goal="ndgc=1").generator()


def test_it_makes_nothing_with_a_policy_that_is_outdated_and_says_for_what_it_waits(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"cache_batches": 2, "max_staleness": 1})
    generator = fleet.generator()
    reasons = []
    for published, newest in ((None, 0), (0, 1), (None, 2), (2, 2)):
        if published is not None:
            fleet.publish(version=published)
        fleet.transport.cache.advance(token=1, version=newest, step=0)
        if not generator.step():
            generator.waited(1e9)
        generator.report()
        values = fleet.transport.metrics.last(1)[0].values
        reasons.append({name for name, value in values.items() if name.startswith(("wait/", "limit/")) and value == 1})
    assert reasons == [
        {names.WAIT_SHARE, names.WAIT_POLICY},  # nothing is published
        set(),  # one version behind, which may be
        {names.WAIT_SHARE, names.WAIT_POLICY, names.LIMIT_STALENESS},  # two behind
        set(),
    ]
    assert fleet.transport.cache.ledger().generated == 2


def test_it_says_that_pacing_holds_it_up(make_fleet: MakeFleet) -> None:
    fleet = make_fleet({"cache_batches": 1})
    generator = fleet.generator()
    fleet.publish()
    assert [generator.step(), generator.step()] == [True, False]
    generator.waited(1e9)
    generator.report()
    values = fleet.transport.metrics.last(1)[0].values
    assert values[names.WAIT_ROOM] == values[names.LIMIT_PACING] == 1


def test_a_generator_that_nobody_numbers_is_told_apart_from_the_supervisors(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    for index in (0, 1, None, None):
        Generator(fleet.world, fleet.config, fleet.transport, index).report()
    assert [record.id for record in fleet.transport.metrics.read()[0]] == [0, 1, MAX_GENERATORS + 3, MAX_GENERATORS + 4]


def test_a_policy_that_could_not_be_read_is_read_later(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = make_fleet()
    generator = fleet.generator()
    fleet.publish()
    calls, read = itertools.count(), LocalStorage.read

    def fails_at_the_weights(self: LocalStorage, path: str, at_most: int) -> bytes:
        if path.endswith(".safetensors") and next(calls) == 0:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, path, at_most)

    monkeypatch.setattr(LocalStorage, "read", fails_at_the_weights)
    with pytest.raises(StorageError):
        generator.step()
    assert generator.step()
