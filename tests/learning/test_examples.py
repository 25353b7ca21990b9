"""Random cuts of random users: whose, where, and what follows."""

from __future__ import annotations

import numpy as np
from scipy.stats import chisquare

from gptrec_rl.data import Catalogue, Histories, Interactions, Split, SplitConfig
from gptrec_rl.learning.examples import draw_cuts, draw_windows


def test_a_history_is_cut_and_its_next_item_is_the_ground_truth(ring: Split) -> None:
    cuts = draw_cuts(ring, 500, np.random.default_rng(0))
    assert len(cuts.users) == len(cuts.histories) == len(cuts.ground_truth) == 500
    assert cuts.ground_truth.dtype == np.int64
    for user, history, truth in zip(cuts.users, cuts.histories, cuts.ground_truth, strict=True):
        whole = ring.training[int(user)]
        assert [*history, truth] == whole[: len(history) + 1].tolist()


def test_users_are_uniform_over_those_without_a_validation_item(ring: Split) -> None:
    users = draw_cuts(ring, 10_000, np.random.default_rng(1)).users
    counts = np.bincount(users, minlength=60)
    assert (counts[ring.validation_users] == 0).all()
    assert chisquare(counts[ring.training_users]).pvalue > 0.001


def test_cuts_are_uniform_from_the_empty_history_to_all_but_one() -> None:
    ids = np.array([str(item) for item in range(1, 9)])
    histories = Histories.of([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3], [4, 5, 6]])
    interactions = Interactions(Catalogue(ids, ids), np.array(["a", "b", "c"]), histories, "three users")
    split = Split(interactions, np.array([1, 2]))
    # User a's training history has 7 items (its last is the test item): cuts of 0..6 items.
    lengths = draw_cuts(split, 7_000, np.random.default_rng(2)).histories.lengths
    counts = np.bincount(lengths)
    assert len(counts) == 7
    assert chisquare(counts).pvalue > 0.001


def test_held_out_items_are_never_drawn() -> None:
    """Everybody's validation item is 11 and test item is 12, which occur nowhere else."""
    ids = np.array([str(item) for item in range(1, 13)])
    histories = Histories.of([[*range(1, 3 + user % 8), 11, 12] for user in range(30)])
    users = np.array([str(user) for user in range(30)])
    split = Split.of(Interactions(Catalogue(ids, ids), users, histories, "marked"), SplitConfig(validation_users=8))
    cuts = draw_cuts(split, 2_000, np.random.default_rng(3))
    assert 12 not in cuts.histories.values
    assert 12 not in cuts.ground_truth
    validation = {int(user) for user in split.validation_users}
    assert validation.isdisjoint(cuts.users.tolist())


def test_a_seed_decides_the_cuts(ring: Split) -> None:
    one, same = (draw_cuts(ring, 50, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one.histories.values, same.histories.values)
    assert np.array_equal(one.ground_truth, same.ground_truth)


def test_a_window_is_a_run_of_its_users_training_history(ring: Split) -> None:
    users, windows = draw_windows(ring, 500, 5, np.random.default_rng(0))
    assert windows.lengths.max() == 5
    for user, window in zip(users, windows, strict=True):
        whole = ring.training[int(user)].tolist()
        assert len(window) == min(5, len(whole))
        assert any(whole[start : start + len(window)] == window.tolist() for start in range(len(whole)))
    assert len({tuple(window) for user, window in zip(users, windows, strict=True) if user == users[0]}) > 1


def test_windows_start_anywhere_alike() -> None:
    ids = np.array([str(item) for item in range(1, 9)])
    histories = Histories.of([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3], [4]])
    interactions = Interactions(Catalogue(ids, ids), np.array(["a", "b", "c"]), histories, "three users")
    users, windows = draw_windows(Split(interactions, np.array([1])), 6_000, 3, np.random.default_rng(1))
    # User a's training history has 7 items, so 5 windows of 3; that of b has 1; c has none, and is never drawn.
    assert chisquare(np.bincount(users)).pvalue > 0.001
    assert set(users.tolist()) == {0, 1}
    starts = np.bincount([int(window[0]) for user, window in zip(users, windows, strict=True) if user == 0])[1:]
    assert len(starts) == 5
    assert chisquare(starts).pvalue > 0.001


def test_windows_hold_no_held_out_items() -> None:
    """Everybody's validation item is 11 and test item is 12, which occur nowhere else."""
    ids = np.array([str(item) for item in range(1, 13)])
    histories = Histories.of([[*range(1, 3 + user % 8), 11, 12] for user in range(30)])
    users = np.array([str(user) for user in range(30)])
    split = Split(Interactions(Catalogue(ids, ids), users, histories, "marked"), np.arange(30))
    drawn, windows = draw_windows(split, 1_000, 4, np.random.default_rng(3))
    assert set(drawn.tolist()) == set(range(30))  # users with a validation item count, too
    assert windows.values.max() < 11
