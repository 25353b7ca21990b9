"""Training examples: random users' training histories, cut at random points."""

from __future__ import annotations

import numpy as np

from gptrec_rl.data import Cases, Histories, Split


def draw_cuts(split: Split, n: int, rng: np.random.Generator) -> Cases:
    """Draw n cuts (with replacement); the item after the cut is the ground truth.

    A cut of a training history of T items is uniform in 0..T - 1, so a new user's empty history is drawn, too.
    """
    users = rng.choice(split.training_users, n)
    lengths = split.training.lengths[users]
    cuts = rng.integers(0, lengths)
    histories = Histories.of([split.training[int(user)][:cut] for user, cut in zip(users, cuts, strict=True)])
    ground_truth = split.training.values[split.training.offsets[users] + cuts].astype(np.int64)
    return Cases(users, histories, ground_truth)


def draw_windows(split: Split, n: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, Histories]:
    """Draw n users (with replacement), and of each a window of so many items in a row, or all if there are fewer.

    Users with a validation item count, too: it is not in their training history.

    Returns:
        rows of the users, [n] int64, and their windows, n histories of one item or more.
    """
    users = rng.choice(np.flatnonzero(split.training.lengths), n)
    starts = rng.integers(0, np.maximum(split.training.lengths[users] - length, 0) + 1)
    windows = [split.training[int(user)][start : start + length] for user, start in zip(users, starts, strict=True)]
    return users, Histories.of(windows)
