"""Reranked recommenders: the protocol's rules, and what a sweep shares."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from gptrec_rl.config import RerankConfig, RerankScaling
from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.data.sources.ml1m import read_sequences
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import count_invalid, measure
from gptrec_rl.models.markov import MarkovChain, PopularityRecommender
from gptrec_rl.models.reranker import Reranked, sweep
from gptrec_rl.recommender import Recommender
from gptrec_rl.rerank import RERANKERS

N_ITEMS = 30
METHODS, SCALINGS = tuple(RERANKERS), get_args(RerankScaling)
COMBINATIONS = [(method, scaling) for method in METHODS for scaling in SCALINGS]


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(5)
    ids = np.array([str(item) for item in range(1, N_ITEMS + 1)])
    genres = np.eye(5, dtype=bool)[rng.integers(0, 5, N_ITEMS)]
    shares = rng.dirichlet(np.ones(N_ITEMS))
    histories = Histories.of([rng.choice(N_ITEMS, 3 + 2 * (u % 9), False, shares) + 1 for u in range(40)])
    users = np.array([f"u{user}" for user in range(40)])
    return Split(Interactions(Catalogue(ids, ids, tuple("abcde"), genres), users, histories, "made up"), np.arange(5))


@pytest.fixture(scope="module")
def chain(split: Split) -> MarkovChain:
    return MarkovChain(split)


@pytest.mark.parametrize(("method", "scaling"), COMBINATIONS)
def test_lists_obey_the_protocol(split: Split, chain: MarkovChain, method: str, scaling: RerankScaling) -> None:
    recommender: Recommender = Reranked(chain, RerankConfig(method=method, weight=0.4, scaling=scaling), split)
    cases = split.test
    allowed = np.arange(1, N_ITEMS + 1) % 7 != 0
    slates = recommender.recommend(cases.histories, 5, allowed)
    assert (slates.items.shape, slates.items.dtype, slates.scores.dtype) == ((40, 5), np.int64, np.float32)
    assert count_invalid(slates.items, cases.histories, N_ITEMS) == 0
    assert (slates.items % 7 != 0).all()
    assert recommender.recommend([[]], N_ITEMS).items.shape == (1, N_ITEMS)  # a new user, and the whole catalogue


@pytest.mark.parametrize(("method", "scaling"), COMBINATIONS)
def test_weight_one_is_the_base_model(split: Split, chain: MarkovChain, method: str, scaling: RerankScaling) -> None:
    histories = split.test.histories
    items = (
        Reranked(chain, RerankConfig(method=method, weight=1.0, scaling=scaling), split).recommend(histories, 6).items
    )
    np.testing.assert_array_equal(items, chain.recommend(histories, 6).items)


def test_pcount_at_weight_zero_is_popularity_upside_down_among_the_candidates(split: Split, chain: MarkovChain) -> None:
    histories = split.test.histories
    for n_candidates in (N_ITEMS, 8):
        items = (
            Reranked(chain, RerankConfig(method="pcount", weight=0.0, scaling="raw", n_candidates=n_candidates), split)
            .recommend(histories, 3)
            .items
        )
        for row, history in enumerate(histories):
            base = chain.recommend([history], min(n_candidates, N_ITEMS - len(history))).items[0]
            rarest = sorted(base, key=lambda item: split.frequencies[item - 1])[:3]  # stable: the better score first
            assert items[row].tolist() == rarest


def test_the_fair_scaling_divides_popularity_by_the_largest(split: Split) -> None:
    popular = PopularityRecommender(split)  # for a new user its min-max scaled scores are the scaled popularities
    scores = (
        Reranked(popular, RerankConfig(method="pcount", weight=0.5, scaling="min-max"), split)
        .recommend([[]], 10)
        .scores
    )
    assert split.frequencies.min() == 0
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def test_fewer_candidates_confine_the_list(split: Split, chain: MarkovChain) -> None:
    histories = split.test.histories
    items = (
        Reranked(chain, RerankConfig(method="mmr", weight=0.0, scaling="raw", n_candidates=4), split)
        .recommend(histories, 4)
        .items
    )
    np.testing.assert_array_equal(np.sort(items), np.sort(chain.recommend(histories, 4).items))


@pytest.mark.parametrize(("method", "scaling"), COMBINATIONS)
def test_a_sweep_makes_the_lists_of_each_weight(
    split: Split, chain: MarkovChain, method: str, scaling: RerankScaling
) -> None:
    seen: list[tuple[int, int]] = []
    histories, weights = split.test.histories, [0.0, 0.3, 1.0]
    configs = [RerankConfig(method=method, weight=weight, scaling=scaling, n_candidates=9) for weight in weights]
    items = sweep(chain, configs, split, histories, 4, 16, lambda done, total: seen.append((done, total)))
    assert seen == [(16, 40), (32, 40), (40, 40)]
    for place, config in enumerate(configs):
        np.testing.assert_array_equal(items[place], Reranked(chain, config, split).recommend(histories, 4).items)
    assert not np.array_equal(items[0], items[2])


def test_lists_longer_than_the_candidates_are_refused(split: Split, chain: MarkovChain) -> None:
    with pytest.raises(InputError, match="K = 5 items can't be chosen from 4 candidates"):
        Reranked(chain, RerankConfig(method="mmr", weight=0.5, scaling="raw", n_candidates=4), split).recommend(
            [[1]], 5
        )
    with pytest.raises(InputError, match="leaves 29 of 30"):
        Reranked(chain, RerankConfig(method="mmr", weight=0.5, scaling="raw"), split).recommend([[1]], 30)


def test_known_figures_on_movielens_1m(shared_data: Path) -> None:
    """Rerankers over the Markov chain, min-max scaled over its top 500, as measured with another implementation."""
    split = Split.of(read_sequences(shared_data / "ml-1m"))
    chain, cases = MarkovChain(split), split.test

    def means(method: str, weight: float) -> dict[str, float]:
        config = RerankConfig(method=method, weight=weight, scaling="min-max", n_candidates=500)
        (items,) = sweep(chain, [config], split, cases.histories)
        return measure(items, cases, split, name=method).summary()

    diverse, unpopular = means("mmr", 0.5), means("pcount", 1 / 1.4)
    assert (diverse["NDCG@10"], diverse["ILD@10"]) == pytest.approx((0.1250, 0.4580), abs=1e-3)
    assert (unpopular["NDCG@10"], unpopular["nPCOUNT@10"]) == pytest.approx((0.1614, 0.3380), abs=1e-3)


def test_diverse_lists_need_genres_and_less_popular_ones_do_not(split: Split, chain: MarkovChain) -> None:
    catalogue = dataclasses.replace(
        split.catalogue, genre_names=(), genres=np.zeros((split.catalogue.n_items, 0), dtype=bool)
    )
    plain = Split(dataclasses.replace(split.interactions, catalogue=catalogue), split.validation_users)
    for method in ("mmr", "ild"):
        with pytest.raises(InputError, match="has no genre"):
            Reranked(chain, RerankConfig(method=method, weight=0.5, scaling="raw"), plain)
    assert Reranked(chain, RerankConfig(method="pcount", weight=0.5, scaling="raw"), plain).recommend(
        [[1]], 3
    ).items.shape == (1, 3)
