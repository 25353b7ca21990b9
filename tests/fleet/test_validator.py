from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gptrec_rl import metrics
from gptrec_rl.data import Split
from gptrec_rl.decoding import NextK
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.telemetry import names

if TYPE_CHECKING:
    from tests.fixtures.fleet import Fleet, MakeFleet

MakePolicy = Callable[..., GPTRec]


@pytest.fixture
def policies(world: Split, make_policy: MakePolicy) -> list[GPTRec]:
    return [make_policy(world.catalogue.n_items, 8, 4, seed=seed) for seed in range(3)]


def values_of(fleet: Fleet) -> list[dict[str, float]]:
    return [dict(record.values) for record in fleet.transport.metrics.read()[0]]


def test_the_score_is_the_goals_mean_over_the_validation_users_greedy_lists(
    world: Split, policies: list[GPTRec], make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(goal="ndcg=2,ild=0.5")
    validator = fleet.validator()
    fleet.publish(policies[0], 7)
    assert validator.step() is not None
    (record,), _ = fleet.transport.metrics.read()
    cases = world.validation
    items = NextK(policies[0], "fp32").recommend(cases.histories, 4).items
    ndcg = metrics.ndcg(items, cases.ground_truth, 4).mean()
    ild = metrics.ild(items, world.catalogue.genres, 4).mean()
    assert ild > 0
    assert (record.role, record.token, record.step) == ("validator", 1, 70)
    assert record.values[names.VAL_REWARD] == pytest.approx(2 * ndcg + 0.5 * ild, rel=1e-5)
    assert record.values["val/ndcg@4"] == pytest.approx(ndcg)
    assert record.values["val/ild@4"] == pytest.approx(ild)
    assert record.values["val/ild@4/error"] > 0
    assert record.values[names.VAL_VERSION] == 7
    assert record.values[names.VAL_IS_BEST] == 1.0


def test_it_waits_for_a_policy_and_scores_none_twice(policies: list[GPTRec], make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    validator = fleet.validator()
    assert validator.step() is None
    fleet.publish(policies[0], 0)
    assert validator.step() is not None
    assert validator.step() is None
    assert len(values_of(fleet)) == 1


def test_the_first_policy_is_scored_before_the_newest_and_those_in_between_are_passed_over(
    policies: list[GPTRec], make_fleet: MakeFleet
) -> None:
    fleet = make_fleet()
    validator = fleet.validator()
    for version, policy in enumerate([*policies, *policies]):
        fleet.publish(policy, version)
    validator.step()
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [0, 5]
    fleet.publish(policies[0], 6)
    validator.step()
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [0, 5, 6]


def test_the_first_policy_waits_in_the_store_for_a_validator_that_comes_late(
    policies: list[GPTRec], make_fleet: MakeFleet
) -> None:
    fleet = make_fleet()
    store = fleet.transport.store
    for version in range(20):  # the store keeps 6 policies
        fleet.publish(policies[version % 3], version)
    fleet.publish(policies[1], 20, token=2)  # of the optimiser after a resume
    fleet.validator().step()
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [0, 20]
    best = store.best()
    assert best is not None
    for version in range(21, 30):
        fleet.publish(policies[1], version, token=2)
    assert [entry.version for entry in store.policies()] == sorted({best[0].version, *range(24, 30)})


def test_a_restarted_one_does_not_score_the_first_policy_again(policies: list[GPTRec], make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.publish(policies[0], 0)
    fleet.validator().step()
    fleet.publish(policies[1], 1)
    fleet.validator().step()
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [0, 1]


def test_a_first_policy_that_is_damaged_holds_nobody_up(
    policies: list[GPTRec], make_fleet: MakeFleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet()
    fleet.publish(policies[0], 0)
    (tmp_path / "store/policies/v00000000-token_1/model.safetensors").write_bytes(b"")
    fleet.publish(policies[1], 1)
    assert fleet.validator().step() is not None
    assert "v00000000-token_1/model.safetensors has" in caplog.text
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [1]


def test_the_best_one_is_replaced_only_by_a_higher_score(policies: list[GPTRec], make_fleet: MakeFleet) -> None:
    fleet = make_fleet(goal="ild=1")
    validator = fleet.validator()
    for version in range(6):  # each policy twice: an equal score is not a higher one
        fleet.publish(policies[version // 2], version)
        validator.step()
    scores = [values[names.VAL_REWARD] for values in values_of(fleet)]
    assert len(set(scores)) == 3
    expected = [score > max(scores[:place], default=-np.inf) for place, score in enumerate(scores)]
    assert [bool(values[names.VAL_IS_BEST]) for values in values_of(fleet)] == expected
    best = fleet.transport.store.best()
    assert best is not None
    assert (best[0].version, best[1]) == (int(np.argmax(scores)), max(scores))


def test_a_restarted_one_does_not_replace_a_better_one(policies: list[GPTRec], make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.publish(policies[0], 0)
    latest = fleet.transport.store.latest_policy()
    assert latest is not None
    fleet.transport.store.mark_best(latest, 99.0)
    fleet.publish(policies[1], 1)
    fleet.validator().step()
    best = fleet.transport.store.best()
    assert best is not None
    assert (best[0].version, best[1]) == (0, 99.0)


def test_a_damaged_newest_policy_is_passed_over_with_a_line_and_the_next_one_scored(
    policies: list[GPTRec], make_fleet: MakeFleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet()
    validator = fleet.validator()
    fleet.publish(policies[0], 0)
    weights = tmp_path / "store/policies/v00000000-token_1/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert [validator.step() for _ in range(2)] == [None, None]
    assert caplog.text.count("v00000000-token_1/model.safetensors has") == 1
    assert fleet.transport.store.best() is None
    fleet.publish(policies[1], 1)
    assert validator.step() is not None
    assert [values[names.VAL_VERSION] for values in values_of(fleet)] == [1]


def test_it_says_that_it_is_alive(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    fleet.validator().report()
    (record,), _ = fleet.transport.metrics.read()
    assert record.role == "validator"
    assert not any(name.startswith("val/") for name in record.values)


def test_a_goal_that_is_not_defined_is_refused(make_fleet: MakeFleet) -> None:
    with pytest.raises(InputError, match="can't be imported"):
        make_fleet(goal="no_such_module:reward=1").validator()
