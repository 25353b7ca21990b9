"""Next-K by appending, against a loop that scores again for every item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gptrec_rl.decoding import Appending
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import recommender_of
from gptrec_rl.models.network import Network
from gptrec_rl.recommender import ScoringRecommender

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
NOT_8_OR_10 = np.array([item not in (8, 10) for item in range(1, 13)])
OF_EACH = np.stack([np.arange(12) % 5 != row for row in range(5)])  # [B, I]
KINDS = ("sasrec", "shifting", "bert4rec")


@pytest.fixture(params=KINDS)
def scorer(request: pytest.FixtureRequest, make_network: Callable[..., Network]) -> ScoringRecommender:
    model = recommender_of(make_network(request.param), "top-k", "fp32")
    assert hasattr(model, "score")
    return model


@pytest.mark.parametrize("allowed", [None, NOT_8_OR_10, OF_EACH], ids=["all", "some", "some of each"])
def test_lists_are_those_of_a_plain_loop(scorer: ScoringRecommender, allowed: np.ndarray | None) -> None:
    slates = Appending(scorer).recommend(HISTORIES, 3, allowed)
    may = np.broadcast_to(True if allowed is None else allowed, (5, 12))
    for row, history in enumerate(HISTORIES):
        grown = list(history)
        for place in range(3):
            scores = scorer.score([grown])[0]
            scores[~may[row]] = -np.inf
            scores[np.array(grown, dtype=np.int64) - 1] = -np.inf
            best = int(scores.argmax())
            assert slates.items[row, place] == best + 1
            assert slates.scores[row, place] == pytest.approx(scores[best], abs=1e-4)
            grown.append(best + 1)


def test_what_is_in_the_list_changes_what_follows(scorer: ScoringRecommender) -> None:
    next_k, top_k = Appending(scorer).recommend(HISTORIES, 4), scorer.recommend(HISTORIES, 4)
    assert np.array_equal(next_k.items[:, 0], top_k.items[:, 0])
    assert not np.array_equal(next_k.items, top_k.items)


def test_for_one_item_it_is_top_k(scorer: ScoringRecommender) -> None:
    next_one, top_one = Appending(scorer).recommend(HISTORIES, 1), scorer.recommend(HISTORIES, 1)
    assert np.array_equal(next_one.items, top_one.items)
    np.testing.assert_array_equal(next_one.scores, top_one.scores)


def test_nothing_is_recommended_twice_or_again(scorer: ScoringRecommender) -> None:
    for history, items in zip(HISTORIES, Appending(scorer).recommend(HISTORIES, 5).items, strict=True):
        assert len({*history, *items.tolist()}) == len(history) + 5


def test_items_that_the_model_no_longer_reads_stay_out(make_network: Callable[..., Network]) -> None:
    """With n = 5 the first items of a long history, and of a long list, are out of sight."""
    slates = recommender_of(make_network("sasrec"), "next-k").recommend([[1, 2, 3, 4]], 8)
    assert sorted(slates.items[0].tolist()) == [5, 6, 7, 8, 9, 10, 11, 12]


def test_too_few_candidates_are_refused_before_anything_is_scored(scorer: ScoringRecommender) -> None:
    with pytest.raises(InputError, match="K = 6 items can't be made for history 1, which leaves 5 of 12"):
        Appending(scorer).recommend([[1], [1, 2, 3, 4, 5, 6, 7]], 6)


def test_no_histories_have_no_lists(scorer: ScoringRecommender) -> None:
    assert Appending(scorer).recommend([], 3).items.shape == (0, 3)
