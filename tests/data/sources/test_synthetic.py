from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gptrec_rl.data import Interactions, Split
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.errors import InputError


@pytest.fixture(scope="module")
def world() -> Interactions:
    return generate()


def test_the_world_depends_on_its_arguments_and_seed_alone() -> None:
    small = {"n_users": 20, "n_items": 60, "mean_length": 10.0, "n_genres": 3}
    assert generate(**small, seed=1).hash == generate(**small, seed=1).hash  # type: ignore[arg-type]
    assert generate(**small, seed=1).hash != generate(**small, seed=2).hash  # type: ignore[arg-type]


def test_the_world_is_as_large_as_asked_for(world: Interactions) -> None:
    assert (world.n_users, world.catalogue.n_items, len(world.catalogue.genre_names)) == (2000, 400, 8)
    # The lengths' standard deviation is 35 / sqrt(2) = 25, so that of the mean of 2,000 is 0.55.
    assert abs(world.histories.lengths.mean() - 40.0) < 2.0
    assert world.histories.lengths.min() >= 5
    assert world.histories.lengths.max() <= 200


def test_no_history_has_an_item_twice(world: Interactions) -> None:
    assert all(len(set(history.tolist())) == len(history) for history in world.histories)


def test_items_have_one_to_three_genres_and_titles_of_their_own(world: Interactions) -> None:
    per_item = world.catalogue.genres.sum(axis=1)
    assert (per_item.min(), per_item.max()) == (1, 3)
    assert len(set(world.catalogue.titles.tolist())) == 400


def test_popular_items_are_far_more_popular_than_the_rest(world: Interactions) -> None:
    counts = np.sort(np.bincount(world.histories.values, minlength=401)[1:])[::-1]
    assert counts[:40].sum() > 0.2 * counts.sum()  # twice a tenth of the items' fair share
    assert counts[0] > 10 * counts[-1] > 0


def test_the_last_item_predicts_the_next_far_better_than_popularity(world: Interactions) -> None:
    split = Split.of(world)
    followers: dict[int, Counter[int]] = {}
    for history in split.training:
        for item, following in zip(history[:-1].tolist(), history[1:].tolist(), strict=True):
            followers.setdefault(item, Counter())[following] += 1
    popular = np.argsort(-split.frequencies)[:10] + 1
    last_items = [int(history[-1]) for history in split.test.histories]
    by_last_item = [[item for item, _ in followers[last].most_common(10)] for last in last_items]
    chain_recall = np.mean([t in likely for t, likely in zip(split.test.ground_truth, by_last_item, strict=True)])
    popularity_recall = np.isin(split.test.ground_truth, popular).mean()
    assert chain_recall > 2.5 * popularity_recall


def test_histories_are_of_fewer_genres_than_the_catalogue(world: Interactions) -> None:
    def share_of_commonest_genre(items: np.ndarray) -> float:
        counts = world.catalogue.genres[items - 1].sum(axis=0)
        return float(counts.max() / counts.sum())

    in_histories = np.mean([share_of_commonest_genre(history) for history in world.histories])
    assert in_histories > 1.5 * share_of_commonest_genre(np.arange(1, 401))


def test_titles_stay_distinct_in_a_large_world() -> None:
    titles = generate(n_users=1, n_items=900, mean_length=6.0).catalogue.titles
    assert len(set(titles.tolist())) == 900


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "0 users"),
        ({"n_genres": 0}, "0 genres can't be made; ask for 1 to 10"),
        ({"n_genres": 11}, "11 genres can't be made"),
        ({"n_items": 100}, r"mean length 40.0 can't be made of 100 items; ask for more than 5 and at most 25"),
        ({"mean_length": 5.0}, "mean length 5.0"),
    ],
)
def test_an_impossible_world_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(**arguments)  # type: ignore[arg-type]
