from __future__ import annotations

import numpy as np
import pytest

from gptrec_rl.data import Catalogue, Histories, Interactions, Split, SplitConfig
from gptrec_rl.errors import InputError

VALIDATION_MARKER, TEST_MARKER = 9, 10


def make_interactions(histories: list[list[int]], n_items: int = 10) -> Interactions:
    ids = np.array([str(item) for item in range(1, n_items + 1)])
    users = np.array([f"u{user}" for user in range(len(histories))])
    return Interactions(Catalogue(ids, ids), users, Histories.of(histories), "tiny")


@pytest.fixture
def marked() -> Split:
    """20 users whose last two items are markers that occur nowhere else."""
    random = np.random.default_rng(7)
    histories = [[*random.permutation(8)[: 2 + user % 5] + 1, VALIDATION_MARKER, TEST_MARKER] for user in range(20)]
    return Split.of(make_interactions(histories), SplitConfig(validation_users=6))


def test_training_sees_no_test_item_of_anybody_and_no_validation_item_of_a_validation_user(marked: Split) -> None:
    assert TEST_MARKER not in marked.training.values
    assert marked.frequencies[TEST_MARKER - 1] == 0.0
    for user in marked.validation_users:
        assert VALIDATION_MARKER not in marked.training[user]
    assert not np.isin(marked.validation_users, marked.training_users).any()
    # The 14 users without a validation item train on their second-last one.
    assert (marked.training.values == VALIDATION_MARKER).sum() == 14


def test_histories_to_evaluate_on_hold_no_ground_truth(marked: Split) -> None:
    assert TEST_MARKER not in marked.validation.histories.values
    assert VALIDATION_MARKER not in marked.validation.histories.values
    assert TEST_MARKER not in marked.test.histories.values
    assert set(marked.validation.ground_truth) == {VALIDATION_MARKER}
    assert set(marked.test.ground_truth) == {TEST_MARKER}


def test_everybody_is_tested_with_all_but_the_last_item(marked: Split) -> None:
    full = marked.interactions.histories
    assert marked.test.users.tolist() == list(range(20))
    assert [history.tolist() for history in marked.test.histories] == [history[:-1].tolist() for history in full]


def test_training_and_validation_users_are_everybody(marked: Split) -> None:
    assert sorted([*marked.training_users, *marked.validation_users]) == list(range(20))
    assert len(marked.validation_users) == 6


def test_frequencies_are_shares_of_the_training_interactions() -> None:
    split = Split(make_interactions([[1, 2, 3], [1, 1, 2, 4], [2, 5]], n_items=5), np.array([1]))
    # Training histories: [1, 2], [1, 1] (validation user: less 2 and 4) and [2]: items 1 and 2 have 3 and 2 of 5.
    assert split.frequencies.tolist() == [0.6, 0.4, 0.0, 0.0, 0.0]


def test_only_users_with_three_interactions_validate() -> None:
    histories = [[1, 2]] * 30 + [[1, 2, 3]] * 3
    split = Split.of(make_interactions(histories), SplitConfig(validation_users=2))
    assert set(split.validation_users) <= {30, 31, 32}


def test_the_draw_depends_on_the_seed_alone() -> None:
    interactions = make_interactions([[1, 2, 3]] * 50)
    splits = [Split.of(interactions, SplitConfig(validation_users=10, seed=seed)) for seed in (1, 1, 2)]
    assert splits[0].hash == splits[1].hash
    assert splits[0].hash != splits[2].hash
    assert splits[0].validation_users.tolist() == sorted(set(splits[0].validation_users.tolist()))


def test_a_user_with_one_interaction_is_named() -> None:
    with pytest.raises(InputError, match=r"user 'u1' has 1 interaction.*2 such users.*--min-user-interactions 2"):
        Split.of(make_interactions([[1, 2, 3], [1], [2]]), SplitConfig(validation_users=1))


@pytest.mark.parametrize("n_validation_users", [3, 4])
def test_a_number_of_validation_users_that_leaves_none_to_train_or_validate_is_refused(n_validation_users: int) -> None:
    with pytest.raises(InputError, match=f"{n_validation_users} validation users.*between 1 and 2"):
        Split.of(make_interactions([[1, 2, 3]] * 3), SplitConfig(validation_users=n_validation_users))


def test_history_that_leaves_too_few_items_is_refused() -> None:
    # The longest history is asked for its last item after 6 others: 10 - 6 = 4 items are left to recommend.
    split = Split.of(make_interactions([[1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [4, 5, 6]]), SplitConfig(validation_users=1))
    split.require_room(4)
    with pytest.raises(InputError, match="K = 5 items can't be made for user 'u1', whose history leaves 4 of 10"):
        split.require_room(5)


def test_the_earlier_name_makes_the_same_split() -> None:
    interactions = make_interactions([[1, 2, 3]] * 6)
    config = SplitConfig(validation_users=2, seed=7)
    assert Split.leave_one_out(interactions, 2, 7).hash == Split.of(interactions, config).hash
