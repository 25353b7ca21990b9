"""What is recorded of an asynchronous fleet is repeated bit for bit; what was tampered with is refused."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.recorder import FOLDER, Recorder
from gptrec_rl.fleet.recording import Recording
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.runs.replay import config_of_replay, replay
from gptrec_rl.runs.run_folder import Run
from gptrec_rl.store.trained_models import STUDENT, save_policy
from gptrec_rl.transport.lease import MemoryLease

MakeConfig = Callable[..., TuneConfig]
MakeTransport = Callable[..., Transport]
MakePolicy = Callable[..., GPTRec]


@dataclasses.dataclass
class RecordedFleet:
    """Two generators that are not in step with the optimisers, of which each is killed but the last."""

    world: Split
    student: GPTRec
    folder: Path
    transport: Transport
    make_config: MakeConfig
    now: list[float]

    def run(self, n: int, saved_at: int | None = None, record_gb: float = 1.0, **changes: object) -> Optimiser:
        """Let a new optimiser take so many steps, and save its state after one of them."""
        self.now[0] += 100.0  # the lease of the one before has run out
        sizes = {"max_reuse": 3, "publish_every": 3, "cache_batches": 3, "record": True, "record_gb": record_gb}
        config = self.make_config(sizes, **changes)
        recorder = Recorder(self.folder, config, self.world, self.student)
        optimiser = Optimiser(self.student, self.world, config, self.transport, f"{self.now}", recorder)
        optimiser.start()
        generators = [Generator(self.world, config, self.transport, index) for index in range(2)]
        rng = np.random.default_rng(n)
        until = optimiser.learner.step + n
        while optimiser.learner.step < until:
            generators[rng.integers(2)].step()
            optimiser.step()
            if saved_at == optimiser.learner.step:
                optimiser.save()
        return optimiser

    def replayed(self) -> tuple[int, Run]:
        """Return how many policies were the recorded ones, and the run that the replay made."""
        recording = Recording.open(self.folder)
        run = Run(self.folder.parent / "again", config_of_replay(recording), self.world)
        shutil.copytree(self.folder / STUDENT, run.folder / STUDENT)
        return replay(recording, run), run


@pytest.fixture
def fleet(
    world: Split, student: GPTRec, make_config: MakeConfig, make_transport: MakeTransport, tmp_path: Path
) -> RecordedFleet:
    now = [0.0]
    transport = make_transport(max_reuse=3, capacity=3)
    transport = dataclasses.replace(transport, lease=MemoryLease(10.0, lambda: now[0]))
    folder = tmp_path / "run"
    hashes = {"catalogue_hash": world.catalogue.hash, "split_hash": world.hash}
    save_policy(folder / STUDENT, student.to_files(), step=0, config={}, **hashes)
    return RecordedFleet(world, student, folder, transport, make_config, now)


def weights_after(run: Run) -> bytes:
    read = run.memory_transport().store.read_latest_policy()
    assert read is not None
    return read[1]["model.safetensors"]


def weights_of(optimiser: Optimiser) -> bytes:
    return optimiser.learner.policy.to_files()["model.safetensors"]


def test_a_recorded_run_is_repeated_to_the_bit(fleet: RecordedFleet) -> None:
    optimiser = fleet.run(20)
    optimiser.finish()
    n_same, run = fleet.replayed()
    assert weights_after(run) == weights_of(optimiser)
    assert n_same == 7  # after steps 3, 6, ..., 18 and 20
    assert run.memory_transport().store.learner_states()[-1].step == 20


def test_a_batch_is_kept_once_however_often_it_is_drawn(fleet: RecordedFleet) -> None:
    fleet.run(20)
    drawn = [(batch.generator_id, batch.sequence_number) for _, batch, _ in Recording.open(fleet.folder).draws()]
    assert len(set(drawn)) < len(drawn) == 20
    (file,) = (fleet.folder / FOLDER).iterdir()
    assert file.read_bytes().count(b"ground_truth") == len(set(drawn))


def test_steps_that_were_done_again_count_once(fleet: RecordedFleet) -> None:
    fleet.run(9, saved_at=5)  # killed: steps 6 to 9 are lost
    fleet.run(4, saved_at=7)  # goes on from 5 to 9; killed: steps 8 and 9 are lost
    last = fleet.run(6)
    assert last.learner.step == 13
    last.finish()
    n_same, run = fleet.replayed()
    assert weights_after(run) == weights_of(last)
    assert n_same >= 4
    assert len(list((fleet.folder / FOLDER).iterdir())) == 3


def test_one_that_wakes_up_after_its_successor_started_changes_nothing(fleet: RecordedFleet) -> None:
    paused = fleet.run(5, saved_at=3)
    last = fleet.run(4)
    _, batch, _ = next(Recording.open(fleet.folder).draws())
    assert paused._recorder is not None
    for step in (6, 7, 8):
        paused._recorder.drawn(step, batch)
    last.finish()
    _, run = fleet.replayed()
    assert weights_after(run) == weights_of(last)


def test_the_torn_end_that_a_kill_leaves_is_left_out(fleet: RecordedFleet) -> None:
    fleet.run(6)
    (file,) = (fleet.folder / FOLDER).iterdir()
    whole = file.read_bytes()
    last = whole.rindex(b"GPRL") - 8  # the frame of step 6's publication; before it, its draw
    for cut in (last + 20, last + 4, last, last - 1):
        file.write_bytes(whole[:cut])
        assert Recording.open(fleet.folder).steps == (6 if cut >= last else 5)


@pytest.mark.parametrize("place", [0, 2, 5, 9, 30, 90])
def test_damage_within_is_refused_before_anything_is_done(place: int, fleet: RecordedFleet) -> None:
    fleet.run(4)
    (file,) = (fleet.folder / FOLDER).iterdir()
    content = bytearray(file.read_bytes())
    second = content.index(b"GPRL", 20) - 8
    content[second + place] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"00000001\.draws is damaged at byte {second}: "):
        Recording.open(fleet.folder)


def test_at_its_size_the_recording_ends_and_the_run_goes_on(
    fleet: RecordedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fleet.run(8, saved_at=8, record_gb=5e-6)
    assert caplog.text.count("the most that fleet.record_gb allows; the run goes on") == 1
    assert sum(file.stat().st_size for file in (fleet.folder / FOLDER).iterdir()) <= 5000
    recording = Recording.open(fleet.folder)
    assert 0 < recording.steps < 8
    assert fleet.replayed()[0] == recording.steps // 3
    fleet.run(2, record_gb=5e-6)  # goes on from step 8, of which nothing is kept but that it did
    assert Recording.open(fleet.folder).steps == recording.steps


def test_a_full_disk_ends_the_recording_and_not_the_run(
    fleet: RecordedFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, n_written = os.write, [0]

    def write_until_it_is_full(file: int, data: bytes) -> int:
        n_written[0] += 1
        return write(file, data[:20] if n_written[0] > 4 else data)

    monkeypatch.setattr("gptrec_rl.fleet.recorder.os.write", write_until_it_is_full)
    with caplog.at_level(logging.WARNING):
        fleet.run(6)
    monkeypatch.undo()
    assert caplog.text.count("there is no room left on its disk; the run goes on") == 1
    assert Recording.open(fleet.folder).steps == 2  # header, publication, two draws


def test_a_recording_that_cannot_be_begun_keeps_no_run_from_starting(
    fleet: RecordedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    (fleet.folder / FOLDER).write_text("in its place")
    with caplog.at_level(logging.WARNING):
        fleet.run(2)
    assert caplog.text.count("ends: [Errno 17] File exists") == 1


def test_there_has_to_be_a_recording_from_the_first_step_on(fleet: RecordedFleet) -> None:
    with pytest.raises(InputError, match="has no recording; make one with 'gptrec-rl tune --record'"):
        Recording.open(fleet.folder)
    fleet.run(3, saved_at=3)
    fleet.run(1)
    first = min((fleet.folder / FOLDER).iterdir())
    first.unlink()
    with pytest.raises(InputError, match="doesn't begin with the run's first step"):
        Recording.open(fleet.folder)


def test_a_run_that_went_on_with_other_settings_is_refused(fleet: RecordedFleet) -> None:
    fleet.run(3, saved_at=3, steps=10)
    fleet.run(1, steps=20)
    Recording.open(fleet.folder)
    fleet.run(1, ppo={"passes": 1})
    with pytest.raises(InputError, match=r"resumed at step 3 with another ppo\.passes, 1 for 2"):
        Recording.open(fleet.folder)


def test_another_student_or_split_is_refused(fleet: RecordedFleet, make_policy: MakePolicy) -> None:
    fleet.run(3)
    recording = Recording.open(fleet.folder)
    other = make_policy(fleet.world.catalogue.n_items, history_length=8, slate_length=4, seed=1)
    hashes = {"catalogue_hash": fleet.world.catalogue.hash, "split_hash": fleet.world.hash}
    save_policy(fleet.folder / STUDENT, other.to_files(), step=0, config={}, **hashes)
    with pytest.raises(InputError, match="the recorded run had another student"):
        fleet.replayed()
    other_split = Split.of(fleet.world.interactions, SplitConfig(validation_users=11))
    with pytest.raises(InputError, match="the recorded run had another split"):
        replay(recording, Run(fleet.folder, config_of_replay(recording), other_split))


def test_one_bit_of_difference_is_an_error(fleet: RecordedFleet) -> None:
    fleet.run(6)
    recording = Recording.open(fleet.folder)
    config = recording.header.config
    ppo = config.ppo.model_copy(update={"policy_learning_rate": 3.0001e-5})
    header = recording.header.model_copy(update={"config": config.model_copy(update={"ppo": ppo})})
    changed = dataclasses.replace(recording, header=header)
    with pytest.raises(InputError, match="the policy of step 3 is not the recorded one"):
        replay(changed, Run(fleet.folder, config_of_replay(changed), fleet.world))
