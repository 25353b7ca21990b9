"""The Markov chain against loops over its formula, and its known figures on MovieLens-1M."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.data.sources.ml1m import read_sequences
from gptrec_rl.evaluation import evaluate
from gptrec_rl.models.markov import MarkovChain

N_ITEMS = 9


def make_split(histories: list[list[int]], validation_users: Sequence[int] = ()) -> Split:
    ids = np.array([str(item) for item in range(1, N_ITEMS + 1)])
    users = np.array([str(user) for user in range(len(histories))])
    interactions = Interactions(Catalogue(ids, ids), users, Histories.of(histories), "made up")
    return Split(interactions, np.array(validation_users, dtype=np.int64))


def by_loops(training: list[list[int]], history: list[int]) -> list[float]:
    """Return sum_j 0.6^j log((count of i at distance j after the j-th last item + 0.1) / its count) of each item i."""
    scores = []
    for item in range(1, N_ITEMS + 1):
        score = 0.0
        for j in range(1, min(len(history), 50) + 1):
            source = history[-j]
            n_source = sum(past.count(source) for past in training)
            if n_source:
                pairs = sum(
                    past[place] == source and past[place + j] == item
                    for past in training
                    for place in range(len(past) - j)
                )
                score += 0.6**j * math.log((pairs + 0.1) / n_source)
        scores.append(score)
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = [rng.integers(1, N_ITEMS, rng.integers(2, 70)).tolist() for _ in range(6)]  # item 9 is never seen
    split = make_split(whole, [0, 3])
    training = [past[: -2 if user in (0, 3) else -1] for user, past in enumerate(whole)]
    asked = [[3], [1, 2, 9, 4], rng.integers(1, N_ITEMS, 80).tolist(), [9, 5]]
    scores = MarkovChain(split).score(asked)
    assert (scores.shape, scores.dtype) == ((4, N_ITEMS), np.float32)
    for row, history in enumerate(asked):
        np.testing.assert_allclose(scores[row], by_loops(training, history), rtol=1e-4, atol=1e-4)


def test_scores_by_hand() -> None:
    # Training: 1 2 3 and 1 3. After item 1 (seen twice), at distance 1: item 2 once, item 3 once.
    scores = MarkovChain(make_split([[1, 2, 3, 9], [1, 3, 9]])).score([[1], [2, 1]])
    seen, unseen = math.log(1.1 / 2), math.log(0.1 / 2)
    assert scores[0, :4].tolist() == pytest.approx([0.6 * unseen, 0.6 * seen, 0.6 * seen, 0.6 * unseen], abs=1e-5)
    # Two places after item 2 (seen once) nothing ever stood: the same log 0.1 for all.
    assert (scores[1] - scores[0]).tolist() == pytest.approx([0.36 * math.log(0.1)] * N_ITEMS, abs=1e-5)


def test_an_unseen_item_contributes_nothing_but_keeps_its_place() -> None:
    chain = MarkovChain(make_split([[1, 2, 3, 1, 4, 8], [2, 4, 1, 3, 8]]))
    np.testing.assert_array_equal(chain.score([[2, 7, 1]]), chain.score([[2, 9, 1]]))
    np.testing.assert_array_equal(chain.score([[7, 1]]), chain.score([[1]]))
    assert not np.array_equal(chain.score([[2, 7, 1]]), chain.score([[2, 1]]))  # item 2 is a place further away


def test_histories_without_a_known_item_are_ranked_by_popularity() -> None:
    # Counts in training: item 3 four times, item 1 three, item 5 two, item 2 one.
    split = make_split([[3, 1, 5, 3, 8], [1, 3, 5, 1, 8], [3, 2, 8]])
    items = MarkovChain(split).recommend([[], [7], [7, 9]], 4).items
    assert items.tolist() == [[3, 1, 5, 2]] * 3


def test_no_histories_make_no_lists() -> None:
    chain = MarkovChain(make_split([[1, 2, 3, 8], [2, 4, 8]]))
    assert chain.score([]).shape == (0, N_ITEMS)
    assert chain.recommend([], 3).items.shape == (0, 3)


def test_lists_leave_out_the_history_and_what_is_not_allowed() -> None:
    chain = MarkovChain(make_split([[1, 2, 3, 4, 8], [1, 2, 3, 5, 8]]))
    assert chain.recommend([[1, 2]], 1).items.tolist() == [[3]]
    assert chain.recommend([[3, 1, 2]], 2).items.tolist() == [[4, 5]]
    assert chain.recommend([[1, 2]], 1, np.arange(1, N_ITEMS + 1) != 3).items.tolist() == [[4]]


def test_known_figures_on_movielens_1m(shared_data: Path) -> None:
    split = Split.of(read_sequences(shared_data / "ml-1m"))
    summary = evaluate(MarkovChain(split), split.test, split, name="markov").summary()
    assert summary["NDCG@10"] == pytest.approx(0.1637, abs=0.002)
    assert summary["Recall@10"] == pytest.approx(0.2730, abs=0.002)
    assert summary["Recall@1"] == pytest.approx(0.0783, abs=0.002)
