"""BERT4Rec's training: which items are masked, what the loss is, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from gptrec_rl.config import Bert4RecConfig, TransformerConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.kinds import recommender_of, training_of
from gptrec_rl.learning import masked_item
from gptrec_rl.learning.masked_item import MaskedItemTraining, draw_masks
from gptrec_rl.models.bert4rec import Bert4Rec

Make = Callable[..., Bert4Rec]
SMALL = Bert4RecConfig(batch_size=16, warmup_steps=1, learning_rate=0.01, precision="fp32", max_steps=4)
WINDOWS = Histories.of([list(range(1, 1 + length)) for length in [1, 2, 3, 5, 12] * 400])


def masked_counts(is_masked: np.ndarray) -> np.ndarray:
    return np.add.reduceat(is_masked, WINDOWS.offsets[:-1], dtype=np.int64)


def test_each_item_is_masked_by_chance_and_one_always_is() -> None:
    is_masked = draw_masks(WINDOWS, 0.2, 0.0, np.random.default_rng(0))
    counts = masked_counts(is_masked)
    assert counts.min() == 1
    # Of a window of 2: a place is masked with 0.2, or with a half where none is (0.64): 0.52; both with 0.04.
    pairs = is_masked[WINDOWS.offsets[1:2000:5][:, None] + np.arange(2)]  # [400, 2]
    assert pairs.mean(axis=0) == pytest.approx([0.52, 0.52], abs=0.08)
    assert pairs.all(axis=1).mean() == pytest.approx(0.04, abs=0.03)
    # Of 12 items 2.4, and the one where none is (0.8^12 = 0.0687).
    assert counts[4::5].mean() == pytest.approx(2.4687, abs=0.25)


def test_in_a_share_of_windows_the_last_item_alone_is_masked() -> None:
    is_masked = draw_masks(WINDOWS, 1.0, 0.3, np.random.default_rng(0))
    only_last = masked_counts(is_masked) < WINDOWS.lengths  # the others are masked all over
    assert only_last[1::5].mean() == pytest.approx(0.3, abs=0.08)
    assert is_masked[WINDOWS.offsets[1:] - 1].all()
    assert (masked_counts(is_masked)[only_last] == 1).all()


def test_the_loss_is_the_mean_cross_entropy_of_all_masks_of_all_parts(
    make_network: Make, ring: Split, monkeypatch: pytest.MonkeyPatch, cut_into: Callable[..., None]
) -> None:
    windows = Histories.of([[1, 2, 3, 4, 5], [7], [8, 9, 10], [3, 4, 5, 6, 7], [1, 2]])
    monkeypatch.setattr(masked_item, "draw_windows", lambda split, n, length, rng: (np.arange(5), windows))
    cut_into(tokens_per_part=1)  # four windows, and the last
    is_masked = draw_masks(windows, 0.5, 0.1, np.random.default_rng(SMALL.seed))
    training = MaskedItemTraining(make_network("bert4rec"), ring, SMALL.model_copy(update={"mask_share": 0.5}))
    losses = list(training._losses(np.random.default_rng(SMALL.seed)))
    assert len(losses) == 2
    terms = []
    for row, window in enumerate(windows):
        hidden = is_masked[windows.offsets[row] : windows.offsets[row + 1]]
        tokens = torch.tensor(np.where(hidden, 13, window)).long()[None]
        with torch.no_grad():
            output = training.network.network(tokens, position_ids=torch.arange(len(window) - 1, -1, -1)[None])
        logits = output.logits[0, torch.tensor(hidden), 1:13]
        terms += functional.cross_entropy(logits, torch.tensor(window[hidden] - 1).long(), reduction="none").tolist()
    assert sum(loss.item() for loss in losses) == pytest.approx(np.mean(terms), abs=1e-4)


def test_every_weight_but_that_of_unused_tokens_has_a_gradient(make_network: Make, ring: Split) -> None:
    training = MaskedItemTraining(make_network("bert4rec"), ring, SMALL)
    for loss in training._losses(np.random.default_rng(SMALL.seed)):
        loss.backward()
    still = [name for name, weights in training.network.named_parameters() if not weights.grad.abs().sum() > 0]
    assert still == []


def test_a_model_learns_the_way_round_the_ring(wide_ring: Split) -> None:
    sizes = TransformerConfig(n_layers=1, n_heads=2, width=32, history_length=5)
    settings = {"model": sizes, "max_steps": 250, "batch_size": 64, "warmup_steps": 20}
    torch.manual_seed(0)
    config = SMALL.model_copy(update={**settings, "last_share": 0.5, "dropout": 0.0, "validate_every": 250})
    training = training_of(config, wide_ring)
    training.run()
    slates = recommender_of(training.network).recommend(wide_ring.test.histories, 1)
    hits = slates.items[:, 0] == wide_ring.test.ground_truth
    assert hits.mean() > 0.85  # 10 after 1..9 is seen in no training history
    assert training.best_loss < 0.1
