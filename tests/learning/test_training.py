"""What all trainings share: saving and resuming, the best weights, and which settings train which model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gptrec_rl.config import (
    Bert4RecConfig,
    BprConfig,
    PretrainConfig,
    SASRecConfig,
    ShiftingConfig,
    TrainingConfig,
    TransformerConfig,
)
from gptrec_rl.data import Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import KINDS, trained_kinds, training_of
from gptrec_rl.learning import next_item
from gptrec_rl.learning.training import Progress, Training
from gptrec_rl.models.bert4rec import Bert4Rec
from gptrec_rl.models.bpr import MatrixFactorization
from gptrec_rl.models.next_item import GPTRecShifting, SASRec

SIZES = TransformerConfig(n_layers=2, n_heads=2, width=16, history_length=5)
BUDGET = {"max_steps": 12, "validate_every": 3}
ADAM = {**BUDGET, "model": SIZES, "batch_size": 16, "warmup_steps": 2, "dropout": 0.2, "precision": "fp32"}
SETTINGS: dict[str, TrainingConfig] = {
    "sasrec": SASRecConfig(**ADAM),
    "sasrec-gbce": SASRecConfig(**ADAM, loss="gbce", n_negatives=4),
    "sasrec-softmax": SASRecConfig(**ADAM, loss="softmax"),
    "shifting": ShiftingConfig(**ADAM),
    "bert4rec": Bert4RecConfig(**ADAM),
    "bpr": BprConfig(**BUDGET),
}
CLASSES = {"sasrec": SASRec, "shifting": GPTRecShifting, "bert4rec": Bert4Rec, "bpr": MatrixFactorization}
each = pytest.mark.parametrize("name", SETTINGS)


def start(name: str, split: Split, seed: int = 0, **settings: object) -> Training[SASRec]:
    torch.manual_seed(seed)
    return training_of(SETTINGS[name].model_copy(update=settings), split)


@pytest.mark.parametrize("name", trained_kinds())
def test_settings_train_their_model(name: str, wide_ring: Split) -> None:
    assert type(SETTINGS[name]) is KINDS[name].config
    assert type(start(name, wide_ring).network) is CLASSES[name]


@each
def test_a_resumed_training_ends_as_an_unbroken_one(name: str, wide_ring: Split) -> None:
    unbroken, saved = start(name, wide_ring), {}
    unbroken.run(lambda p: saved.update(unbroken.to_files()) if p.step == 7 else None)
    resumed = start(name, wide_ring, seed=1)
    resumed.resume(saved)
    progress: list[Progress] = []
    resumed.run(progress.append)
    assert [p.step for p in progress] == [8, 9, 10, 11, 12]
    assert resumed.best_loss == unbroken.best_loss
    ours, theirs = resumed.to_files(), unbroken.to_files()
    assert ours.keys() == theirs.keys()
    assert all(ours[file] == theirs[file] for file in theirs if file != "counters.json")  # it holds seconds


@each
def test_a_seed_decides_everything_and_another_one_changes_it(name: str, wide_ring: Split) -> None:
    one, same, other = (start(name, wide_ring, max_steps=2, seed=seed) for seed in (3, 3, 4))
    for training in (one, same, other):
        training.run()
    assert one.best_files == same.best_files
    assert one.best_files["model.safetensors"] != other.best_files["model.safetensors"]


@each
def test_training_ends_with_the_best_weights(name: str, wide_ring: Split) -> None:
    training = start(name, wide_ring, validate_every=1)
    losses: list[float] = []
    training.run(lambda p: losses.append(p.validation_loss or 0.0))
    assert training.best_loss == min(losses)
    assert training.network.to_files() == training.best_files
    assert not training.network.training
    assert training._validate() == pytest.approx(min(losses), abs=1e-6)


def test_dropout_differs_from_step_to_step(wide_ring: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = (np.arange(2), Histories.of([[1, 2, 3, 4], [7, 8, 9]]))
    monkeypatch.setattr(next_item, "draw_windows", lambda *_: windows)
    training = start("shifting", wide_ring, max_steps=3, learning_rate=1e-30)
    losses: list[float] = []
    training.run(lambda p: losses.append(p.loss))
    assert len(set(losses)) == 3


@each
def test_weights_move_at_once(name: str, wide_ring: Split) -> None:
    training = start(name, wide_ring, max_steps=1)
    before = training.network.to_files()["model.safetensors"]
    training.run()
    assert training.network.to_files()["model.safetensors"] != before


@each
def test_a_model_of_another_catalogue_is_refused(name: str, ring: Split, wide_ring: Split) -> None:
    training = start(name, wide_ring)
    with pytest.raises(InputError, match="for 24 items and the catalogue has 12"):
        type(training)(training.network, ring, training.config)


def test_stage_1_is_no_recipe(wide_ring: Split) -> None:
    with pytest.raises(TypeError, match="no model is trained with a PretrainConfig"):
        training_of(PretrainConfig(), wide_ring)
