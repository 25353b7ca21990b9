"""The work that ways are compared on: the paper's model (section 4.3) and three kinds of histories."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from gptrec_rl.config import ModelConfig
from gptrec_rl.data import Histories, Interactions, Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.learning.examples import draw_cuts
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.trained_models import load_policy
from gptrec_rl.transport.messages import RolloutBatch

N_ITEMS = 3416
MODEL = ModelConfig()
K, N = MODEL.slate_length, MODEL.history_length
MEDIAN_LENGTH, LOG_DEVIATION = 7.0, 1.0
"""Of Steam-like lengths: log-normal, with a mean of 11.5."""


def full_histories(n: int, length: int = N, n_items: int = N_ITEMS, seed: int = 0) -> Histories:
    """(a): n histories of the longest length that the model reads."""
    return _random_histories(np.full(n, length), n_items, seed)


def cut_histories(split: Split, n: int, seed: int = 0) -> Histories:
    """(b): n random cuts of training histories, as a generator draws them."""
    return draw_cuts(split, n, np.random.default_rng(seed)).histories


def steam_like_histories(n: int, seed: int = 0, n_items: int = N_ITEMS) -> Histories:
    """(c): n histories with a median length of about 7, the longest of which has 200 items."""
    return _random_histories(steam_like_lengths(n, seed), n_items, seed)


def steam_like_lengths(n: int, seed: int = 0) -> np.ndarray:
    """Draw log-normal lengths within 1..200 and stretch the longest to 200, [n] int64."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(np.log(MEDIAN_LENGTH), LOG_DEVIATION, n).round().clip(1, N).astype(np.int64)
    lengths[lengths.argmax()] = N
    return lengths


def _random_histories(lengths: np.ndarray, n_items: int, seed: int) -> Histories:
    rng = np.random.default_rng(seed)
    return Histories.of([rng.choice(n_items, length, replace=False) + 1 for length in lengths])


def open_data(path: Path | None) -> Split:
    """Split the data file; None: a made-up world of the size of MovieLens-1M."""
    if path is not None:
        return Split.of(Interactions.load(path))
    return Split.of(synthetic.generate(n_users=6040, n_items=N_ITEMS, mean_length=165.0))


def policy(n_items: int = N_ITEMS, model: ModelConfig = MODEL) -> GPTRec:
    """Make an untrained policy; one without training costs what a trained one costs."""
    torch.manual_seed(0)
    return GPTRec.create(n_items, model).eval()


def trained_policy(data: Path | None, student: Path | None, split: Split) -> tuple[GPTRec, str]:
    """Return the trained student and what it is, or an untrained policy where there is none."""
    if data is None or student is None:
        return policy(split.catalogue.n_items), "untrained"
    return load_policy(student, split.catalogue), "trained student"


def rollout(histories: Histories, n_lists: int, n_items: int = N_ITEMS, k: int = K, seed: int = 0) -> Rollout:
    """Make G random lists a history, as probable as any, with random rewards `ndcg`: what they hold costs no time."""
    rng = np.random.default_rng(seed)
    slates = np.zeros((len(histories), n_lists, k), dtype=np.int32)
    for row, history in enumerate(histories):
        left = np.setdiff1d(np.arange(1, n_items + 1), history)
        slates[row] = [rng.choice(left, k, replace=False) for _ in range(n_lists)]
    return Rollout(
        temperature=1.0,
        histories=histories,
        ground_truth=slates[:, 0, 0].astype(np.int64),
        slates=slates,
        log_probs=np.full(slates.shape, -np.log(n_items), dtype=np.float32),
        rewards={"ndcg": rng.random(slates.shape, dtype=np.float32)},
    )


def batch_of(rollout: Rollout, run_id: str = "benchmark", token: int = 0) -> RolloutBatch:
    """Make the batch that a generator would send of a rollout."""
    return RolloutBatch(
        **{field.name: getattr(rollout, field.name) for field in fields(rollout)},
        run_id=run_id,
        generator_id=0,
        sequence_number=0,
        token=token,
        policy_version=0,
        learner_step=0,
        created_at=0.0,
        catalogue_hash="",
        split_hash="",
    )
