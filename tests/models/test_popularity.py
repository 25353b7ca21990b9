"""The popularity recommender."""

from __future__ import annotations

import numpy as np
import pytest

from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.models.markov import PopularityRecommender


def test_items_are_ranked_by_their_share_of_training() -> None:
    ids = np.array(["a", "b", "c", "d"])
    histories = Histories.of([[3, 1, 4], [1, 3, 4], [3, 2, 4]])
    split = Split(Interactions(Catalogue(ids, ids), np.array(["x", "y", "z"]), histories, "made up"), np.array([2]))
    recommender = PopularityRecommender(split)
    # Training: 3 1, 1 3 and 3 (user z's validation item is held out, too); item 4 is everybody's test item.
    assert recommender.score([[], [1]]).tolist() == [pytest.approx([0.4, 0.0, 0.6, 0.0])] * 2
    assert recommender.recommend([[], [3]], 3).items.tolist() == [[3, 1, 2], [1, 2, 4]]  # ties: the smaller id
    assert recommender.recommend([[]], 2, np.array([True, True, False, True])).items.tolist() == [[1, 2]]
    assert recommender.recommend([], 3).items.shape == (0, 3)
