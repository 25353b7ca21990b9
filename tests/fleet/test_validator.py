from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl import metrics
from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.decoding import NextK
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport import names
from gptrec_rl.transport.entry import Origin
from gptrec_rl.transport.hub import Transport

MakeConfig = Callable[..., TuneConfig]
MakeTransport = Callable[..., Transport]
MakePolicy = Callable[..., GPTRec]


@pytest.fixture
def policies(world: Split, make_policy: MakePolicy) -> list[GPTRec]:
    return [make_policy(world.catalogue.n_items, 8, 4, seed=seed) for seed in range(3)]


def publish(transport: Transport, world: Split, policy: GPTRec, version: int) -> None:
    transport.store.publish_policy(
        policy.to_files(),
        Origin(
            token=1,
            version=version,
            step=10 * version,
            catalogue_hash=world.catalogue.hash,
            split_hash=world.hash,
            config={},
        ),
    )


def values_of(transport: Transport) -> list[dict[str, float]]:
    return [dict(record.values) for record in transport.metrics.read()[0]]


def test_the_score_is_the_goals_mean_over_the_validation_users_greedy_lists(
    world: Split, policies: list[GPTRec], make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    validator = Validator(world, make_config(goal="ndcg=2,ild=0.5"), transport)
    publish(transport, world, policies[0], 7)
    assert validator.step() is not None
    (record,), _ = transport.metrics.read()
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


def test_it_waits_for_a_policy_and_scores_none_twice(
    world: Split, policies: list[GPTRec], make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    validator = Validator(world, make_config(), transport)
    assert validator.step() is None
    publish(transport, world, policies[0], 0)
    assert validator.step() is not None
    assert validator.step() is None
    assert len(values_of(transport)) == 1


def test_policies_published_in_between_are_passed_over(
    world: Split, policies: list[GPTRec], make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    validator = Validator(world, make_config(), transport)
    for version, policy in enumerate(policies):
        publish(transport, world, policy, version)
    validator.step()
    assert [values[names.VAL_VERSION] for values in values_of(transport)] == [2]


def test_the_best_one_is_replaced_only_by_a_higher_score(
    world: Split, policies: list[GPTRec], make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    validator = Validator(world, make_config(goal="ild=1"), transport)
    for version in range(6):  # each policy twice: an equal score is not a higher one
        publish(transport, world, policies[version // 2], version)
        validator.step()
    scores = [values[names.VAL_REWARD] for values in values_of(transport)]
    assert len(set(scores)) == 3
    expected = [score > max(scores[:place], default=-np.inf) for place, score in enumerate(scores)]
    assert [bool(values[names.VAL_IS_BEST]) for values in values_of(transport)] == expected
    best = transport.store.best()
    assert best is not None
    assert (best[0].version, best[1]) == (int(np.argmax(scores)), max(scores))


def test_a_restarted_one_does_not_replace_a_better_one(
    world: Split, policies: list[GPTRec], make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    publish(transport, world, policies[0], 0)
    latest = transport.store.latest_policy()
    assert latest is not None
    transport.store.mark_best(latest, 99.0)
    publish(transport, world, policies[1], 1)
    Validator(world, make_config(), transport).step()
    best = transport.store.best()
    assert best is not None
    assert (best[0].version, best[1]) == (0, 99.0)


def test_a_damaged_newest_policy_is_passed_over_with_a_line_and_the_next_one_scored(
    world: Split,
    policies: list[GPTRec],
    make_config: MakeConfig,
    make_transport: MakeTransport,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = make_transport()
    validator = Validator(world, make_config(), transport)
    publish(transport, world, policies[0], 0)
    weights = tmp_path / "store/policies/v00000000/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert [validator.step() for _ in range(2)] == [None, None]
    assert caplog.text.count("v00000000/model.safetensors has") == 1
    assert transport.store.best() is None
    publish(transport, world, policies[1], 1)
    assert validator.step() is not None
    assert [values[names.VAL_VERSION] for values in values_of(transport)] == [1]


def test_it_says_that_it_is_alive(world: Split, make_config: MakeConfig, make_transport: MakeTransport) -> None:
    transport = make_transport()
    Validator(world, make_config(), transport).report()
    (record,), _ = transport.metrics.read()
    assert record.role == "validator"
    assert not any(name.startswith("val/") for name in record.values)


def test_a_goal_that_is_not_defined_is_refused(
    world: Split, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    with pytest.raises(InputError, match="can't be imported"):
        Validator(world, make_config(goal="no_such_module:reward=1"), make_transport())
