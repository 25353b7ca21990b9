from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Catalogue, Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.optimiser import COUNTERS_FILE
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.manifest import Origin
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.stream import MetricRecord

if TYPE_CHECKING:
    from tests.fixtures.fleet import Fleet, MakeFleet

Files = dict[str, bytes]

KILLED_IN_ITS_TURN = """
import os, signal, sys
from itertools import count
from pathlib import Path

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Interactions, Split, SplitConfig
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.fleet.shared import memory_transport

folder, last_turn = Path(sys.argv[1]), int(sys.argv[2])
world = Split.of(Interactions.load(folder / "world.npz"), SplitConfig(validation_users=12))
student = GPTRec.from_files({path.name: path.read_bytes() for path in (folder / "student").iterdir()})
config = TuneConfig.model_validate_json((folder / "config.json").read_text())
limits = CacheLimits(config.fleet.cache_batches, config.fleet.max_staleness, config.fleet.max_reuse)
transport = memory_transport("run", limits, world.catalogue.hash, world.hash, str(folder / "killed"))
turns = count()
kill = lambda: next(turns) == last_turn and os.kill(os.getpid(), signal.SIGKILL)
SerialFleet.of(student, world, config, transport).run(is_stopped=kill)
"""

n_calls = 0


def fails_at_the_third_call(
    slates: np.ndarray, ground_truth: np.ndarray, histories: Histories, catalogue: Catalogue
) -> np.ndarray:
    global n_calls
    n_calls += 1
    return np.full(slates.shape, np.nan if n_calls == 3 else 1.0)


def serial(fleet: Fleet) -> SerialFleet:
    return SerialFleet.of(fleet.student, fleet.world, fleet.config, fleet.transport)


def policy_of(fleet: Fleet) -> Files:
    read = fleet.transport.store.read_latest_policy()
    assert read is not None
    return read[1]


def learner_of(fleet: Fleet) -> Files:
    """Return the files of the newest learner state but for the cache's, without the seconds that it took."""
    read = fleet.transport.store.read_latest_learner()
    assert read is not None
    counters = json.loads(read[1][COUNTERS_FILE])
    del counters["elapsed_s"]
    files = {name: data for name, data in read[1].items() if not name.startswith("cache.")}
    return {**files, COUNTERS_FILE: json.dumps(counters).encode()}


def test_one_seed_gives_one_policy_to_the_bit_and_another_seed_another(make_fleet: MakeFleet) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    first, again, other = (make_fleet(folder=folder, seed=seed) for folder, seed in seeds.items())
    for fleet in (first, again, other):
        serial(fleet).run()
    assert policy_of(first) == policy_of(again)
    assert learner_of(first) == learner_of(again)
    weights = policy_of(first)["model.safetensors"]
    assert weights != policy_of(other)["model.safetensors"]
    assert weights != first.student.to_files()["model.safetensors"]


def test_resuming_a_run_that_is_done_changes_token_and_version_and_nothing_else(make_fleet: MakeFleet) -> None:
    made = []
    for _ in range(2):
        fleet = make_fleet(steps=3)
        serial(fleet).run()
        latest = fleet.transport.store.latest_policy()
        assert latest is not None
        made.append(((latest.token, latest.version, latest.step), policy_of(fleet), learner_of(fleet)))
    assert made[0][0] == (1, 2, 3)  # published at steps 0, 2 and 3
    assert made[1][0] == (2, 3, 3)
    assert made[0][1:] == made[1][1:]


def test_a_resumed_run_goes_on_counting_and_learns_from_other_lists(make_fleet: MakeFleet) -> None:
    stopped = make_fleet(steps=3)
    serial(stopped).run()
    before = learner_of(stopped)
    resumed = make_fleet(steps=5)
    serial(resumed).run()
    after = learner_of(resumed)
    assert json.loads(after["learner.json"])["step"] == 5
    # Adam counts its updates: 2 passes a step.
    for files, updates in ((before, 6), (after, 10)):
        counts = {
            name: int(value) for name, value in load(files["policy_optimiser.safetensors"]).items() if "step" in name
        }
        assert set(counts.values()) == {updates}
    assert before[COUNTERS_FILE] != after[COUNTERS_FILE]
    assert [(entry.token, entry.version, entry.step) for entry in resumed.transport.store.policies()] == [
        (1, 0, 0),
        (1, 1, 2),
        (1, 2, 3),
        (2, 3, 3),
        (2, 4, 4),
        (2, 5, 5),
    ]


def test_a_run_that_is_killed_and_resumed_is_the_unbroken_one_to_the_bit(make_fleet: MakeFleet, tmp_path: Path) -> None:
    # Batches are drawn again and again until they are stale; the state of step 10 is the last before the kill.
    sizes = {"max_reuse": 6, "max_staleness": 1, "publish_every": 2, "checkpoint_every_s": 1e-6}
    unbroken = make_fleet(sizes, "unbroken", steps=20)
    serial(unbroken).run()

    unbroken.world.interactions.save(tmp_path / "world.npz")
    (tmp_path / "student").mkdir()
    for name, data in unbroken.student.to_files().items():
        (tmp_path / "student" / name).write_bytes(data)
    (tmp_path / "config.json").write_text(unbroken.config.model_dump_json())
    command = [sys.executable, "-c", KILLED_IN_ITS_TURN, str(tmp_path), "11"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    killed = make_fleet(sizes, "killed", steps=20)
    assert killed.transport.store.learner_states()[-1].step == 10
    serial(killed).run()

    assert policy_of(killed) == policy_of(unbroken)
    assert learner_of(killed) == learner_of(unbroken)
    assert killed.transport.cache.ledger() == unbroken.transport.cache.ledger()
    newest = [fleet.transport.store.latest_policy() for fleet in (killed, unbroken)]
    assert [entry and entry.token for entry in newest] == [2, 1]


def test_every_published_policy_is_scored_and_every_record_shown_once(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(steps=5)
    shown: list[MetricRecord] = []
    serial(fleet).run(shown.append)
    assert shown == fleet.transport.metrics.read()[0]
    scored = [record.values[names.VAL_VERSION] for record in shown if record.role == "validator"]
    assert scored == [0, 1, 2, 3]  # after steps 0, 2, 4 and 5
    last = [record for record in shown if record.role == "optimiser"][-1]
    assert (last.step, last.values[names.PROGRESS]) == (5, 1.0)
    assert fleet.transport.store.best() is not None


def test_the_ledger_adds_up(
    world: Split, student: GPTRec, make_config: Callable[..., TuneConfig], make_transport: Callable[..., Transport]
) -> None:
    transport = make_transport(capacity=2, max_staleness=0, max_reuse=2)  # stricter than a configuration may be
    SerialFleet.of(student, world, make_config(steps=6), transport).run()
    generated, *states, repeated = astuple(transport.cache.ledger())
    assert generated == sum(states) > 0
    assert repeated == 0


def test_being_asked_to_stop_saves_what_was_learned(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(steps=100)
    answers = iter([False, False, False, True])
    serial(fleet).run(is_stopped=lambda: next(answers))
    (state,) = fleet.transport.store.learner_states()
    assert state.step == 3
    latest = fleet.transport.store.latest_policy()
    assert latest is not None
    assert latest.step == 3


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_bad_input_and_ctrl_c_lose_nothing_that_was_learned(error: type[BaseException], make_fleet: MakeFleet) -> None:
    fleet = make_fleet(steps=100)

    def stop_at_step_3(record: MetricRecord) -> None:
        if record.step == 2:
            raise error("stop")

    with pytest.raises(error):
        serial(fleet).run(stop_at_step_3)
    assert [state.step for state in fleet.transport.store.learner_states()] == [2]


@pytest.mark.parametrize(("is_barred", "why"), [(True, "the only generator is in quarantine"), (False, "no batch was")])
def test_a_fleet_that_can_learn_from_nothing_ends_and_says_why(
    is_barred: bool, why: str, make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(steps=100)
    whole = serial(fleet)
    if is_barred:
        whole.transport.cache.quarantine(1)
    else:
        monkeypatch.setattr(whole.optimiser, "step", lambda: None)
    with pytest.raises(InputError, match=why):
        whole.run()


def test_where_all_lists_earn_the_same_the_policy_stays_as_it_is_to_the_bit(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_rewards", sys.modules[__name__])
    fleet = make_fleet({"publish_every": 1}, goal="my_rewards:same=1", steps=3)
    serial(fleet).run()
    store = fleet.transport.store
    first, *_, last = (store.read(policy)["model.safetensors"] for policy in store.policies())
    assert first == last


def same(slates: np.ndarray, *_: object) -> np.ndarray:
    return np.full(slates.shape, 0.5)


def test_nan_from_the_users_own_reward_names_it_and_loses_nothing(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_rewards", sys.modules[__name__])
    fleet = make_fleet({"publish_every": 50}, goal="ndcg=1,my_rewards:fails_at_the_third_call=1", steps=100)
    with pytest.raises(InputError, match="'my_rewards:fails_at_the_third_call' returned nan for list"):
        serial(fleet).run()
    assert [state.step for state in fleet.transport.store.learner_states()] == [1]  # calls: version 0, step 1, step 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("cache.json", b"{}"),
        ("cache.json", b"[]"),
        ("cache.json", b'{"ledger": {"odd": 1}, "last_sent": {}, "quarantined": [], "draws": [], "version": 0}'),
        ("cache.json", b'{"ledger": {}, "last_sent": [], "quarantined": [], "draws": [], "version": 0}'),
        ("generator.json", b'{"sequence_number": null}'),
        ("generator.safetensors", b""),
    ],
)
def test_a_state_whose_cache_or_generator_is_of_another_version_is_refused_by_name(
    file: str, content: bytes, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(steps=2)
    serial(fleet).run()
    read = fleet.transport.store.read_latest_learner()
    assert read is not None
    entry, files = read
    changed = Origin(9, entry.version, 1, entry.catalogue_hash, entry.split_hash, {})
    fleet.transport.store.save_learner({**files, file: content}, changed)
    with pytest.raises(InputError, match="the learner state learner/step_00000001-token_9 can't be resumed"):
        serial(make_fleet(steps=4)).run()


def test_who_stops_it_waits_for_no_further_pass_of_the_validator(make_fleet: MakeFleet) -> None:
    fleet, n_turns = make_fleet({"publish_every": 2}, steps=100), itertools.count()
    scored: list[float] = []
    serial(fleet).run(
        lambda record: scored.extend([record.step] if names.VAL_REWARD in record.values else []),
        is_stopped=lambda: next(n_turns) == 3,
    )
    assert [policy.step for policy in fleet.transport.store.policies()] == [0, 2, 3]
    assert scored == [0, 2]
