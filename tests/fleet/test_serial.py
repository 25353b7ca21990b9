from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
from safetensors.numpy import load

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Catalogue, Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.optimiser import COUNTERS_FILE
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport import names
from gptrec_rl.transport.hub import Transport
from gptrec_rl.transport.metrics import MetricRecord

MakeConfig = Callable[..., TuneConfig]
MakeTransport = Callable[..., Transport]
Files = dict[str, bytes]

n_calls = 0


def fails_at_the_third_call(
    slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue
) -> np.ndarray:
    global n_calls
    n_calls += 1
    return np.full(slates.shape, np.nan if n_calls == 3 else 1.0)


def policy_of(transport: Transport) -> Files:
    read = transport.store.read_latest_policy()
    assert read is not None
    return read[1]


def learner_of(transport: Transport) -> Files:
    """Return the files of the newest learner state but for the cache's, without the seconds that it took."""
    read = transport.store.read_latest_learner()
    assert read is not None
    counters = json.loads(read[1][COUNTERS_FILE])
    del counters["elapsed_s"]
    files = {name: data for name, data in read[1].items() if not name.startswith("cache.")}
    return {**files, COUNTERS_FILE: json.dumps(counters).encode()}


def test_one_seed_gives_one_policy_to_the_bit_and_another_seed_another(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transports = [make_transport(folder) for folder in ("first", "again", "other")]
    for seed, transport in zip((0, 0, 1), transports, strict=True):
        SerialFleet.of(student, world, make_config(seed=seed), transport).run()
    first, again, other = (policy_of(transport) for transport in transports)
    assert first == again
    assert learner_of(transports[0]) == learner_of(transports[1])
    assert first["model.safetensors"] != other["model.safetensors"]
    assert first["model.safetensors"] != student.to_files()["model.safetensors"]


def test_resuming_a_run_that_is_done_changes_token_and_version_and_nothing_else(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    made = []
    for _ in range(2):
        transport = make_transport()
        SerialFleet.of(student, world, make_config(steps=3), transport).run()
        latest = transport.store.latest_policy()
        assert latest is not None
        made.append(((latest.token, latest.version, latest.step), policy_of(transport), learner_of(transport)))
    assert made[0][0] == (1, 2, 3)  # published at steps 0, 2 and 3
    assert made[1][0] == (2, 3, 3)
    assert made[0][1:] == made[1][1:]


def test_a_resumed_run_goes_on_counting_and_learns_from_other_lists(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    SerialFleet.of(student, world, make_config(steps=3), make_transport()).run()
    before = learner_of(make_transport())
    resumed = make_transport()
    SerialFleet.of(student, world, make_config(steps=5), resumed).run()
    after = learner_of(resumed)
    assert json.loads(after["learner.json"])["step"] == 5
    # Adam counts its updates: 2 passes a step.
    for files, updates in ((before, 6), (after, 10)):
        counts = {
            name: int(value) for name, value in load(files["policy_optimiser.safetensors"]).items() if "step" in name
        }
        assert set(counts.values()) == {updates}
    assert before[COUNTERS_FILE] != after[COUNTERS_FILE]
    assert [(entry.token, entry.version, entry.step) for entry in resumed.store.policies()] == [
        (1, 0, 0),
        (1, 1, 2),
        (1, 2, 3),
        (2, 3, 3),
        (2, 4, 4),
        (2, 5, 5),
    ]


def test_every_published_policy_is_scored_and_every_record_shown_once(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    shown: list[MetricRecord] = []
    SerialFleet.of(student, world, make_config(steps=5), transport).run(shown.append)
    assert shown == transport.metrics.read()[0]
    scored = [record.values[names.VAL_VERSION] for record in shown if record.role == "validator"]
    assert scored == [0, 1, 2, 3]  # after steps 0, 2, 4 and 5
    last = [record for record in shown if record.role == "optimiser"][-1]
    assert (last.step, last.values[names.PROGRESS]) == (5, 1.0)
    assert transport.store.best() is not None


def test_the_ledger_adds_up(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport(capacity=2, max_staleness=0, max_reuse=2)
    SerialFleet.of(student, world, make_config(steps=6), transport).run()
    generated, *states, repeated = astuple(transport.cache.ledger())
    assert generated == sum(states) > 0
    assert repeated == 0


def test_being_asked_to_stop_saves_what_was_learned(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()
    answers = iter([False, False, False, True])
    SerialFleet.of(student, world, make_config(steps=100), transport).run(is_stopped=lambda: next(answers))
    (state,) = transport.store.learner_states()
    assert state.step == 3
    latest = transport.store.latest_policy()
    assert latest is not None
    assert latest.step == 3


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_bad_input_and_ctrl_c_lose_nothing_that_was_learned(
    error: type[BaseException], world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport
) -> None:
    transport = make_transport()

    def stop_at_step_3(record: MetricRecord) -> None:
        if record.step == 2:
            raise error("stop")

    fleet = SerialFleet.of(student, world, make_config(steps=100), transport)
    with pytest.raises(error):
        fleet.run(stop_at_step_3)
    assert [state.step for state in transport.store.learner_states()] == [2]


def test_nan_from_the_users_own_reward_names_it_and_loses_nothing(
    world: Split,
    student: GPTRec,
    make_config: MakeConfig,
    make_transport: MakeTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_rewards", sys.modules[__name__])
    transport = make_transport()
    goal = "ndcg=1,my_rewards:fails_at_the_third_call=1"
    fleet = SerialFleet.of(student, world, make_config(goal=goal, steps=100, fleet={"publish_every": 50}), transport)
    with pytest.raises(InputError, match="'my_rewards:fails_at_the_third_call' returned nan for list"):
        fleet.run()
    assert [state.step for state in transport.store.learner_states()] == [1]  # calls: version 0, step 1, step 2
