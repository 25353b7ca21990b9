"""A model, a reranker and a metric of one's own are known everywhere after a line in a table (docs/extending.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gptrec_rl.config import NextItemConfig, RerankConfig, TransformerConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.evaluation import EvaluationTable, evaluate
from gptrec_rl.experiments.config import Rerank, Train
from gptrec_rl.kinds import KINDS, NextItemKind, recommender_of, training_of
from gptrec_rl.metrics import DEFINITIONS, Definition, Lists, beyond_at
from gptrec_rl.models.markov import MarkovChain
from gptrec_rl.models.next_item import NextItemTransformer
from gptrec_rl.models.reranker import Reranked
from gptrec_rl.rerank import RERANKERS, Candidates, Reranker
from gptrec_rl.store.manifest import write_folder
from gptrec_rl.store.trained_models import load_model


class Narrow(NextItemTransformer):
    KINDS = ("narrow",)

    @classmethod
    def create(cls, n_items: int, sizes: TransformerConfig, dropout: float = 0.0) -> Narrow:
        return cls.initialised(
            n_items, sizes, sizes.history_length + 1, activation_function="relu", recommender="narrow"
        )


class NarrowConfig(NextItemConfig):
    model: TransformerConfig = TransformerConfig(n_layers=1, n_heads=1, width=8, history_length=5)


class NarrowKind(NextItemKind):
    network = Narrow
    config = NarrowConfig


def worst(candidates: Candidates, popularity: np.ndarray, weight: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    return candidates.items[:, -k:], popularity[candidates.items[:, -k:] - 1]


def first_genres(of: Lists, k: int) -> np.ndarray:
    return of.genres[of.items[:, 0] - 1].sum(axis=1).astype(float)


@pytest.fixture(scope="module")
def split() -> Split:
    return Split.of(generate(60, 40, 8.0, 4, seed=1), SplitConfig(validation_users=10))


def evaluated(split: Split) -> EvaluationTable:
    return evaluate(MarkovChain(split), split.test, split, name="markov", k=3)


def test_a_model_is_trained_saved_and_read(split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(KINDS, "narrow", NarrowKind())
    assert Train(model="narrow").model == "narrow"
    torch.manual_seed(0)
    trained = training_of(NarrowConfig(max_steps=2, batch_size=8), split)
    trained.run()
    files = trained.network.to_files()
    write_folder(tmp_path, files, step=2, catalogue_hash=split.catalogue.hash, split_hash=split.hash, config={})
    read = load_model(tmp_path, split.catalogue)
    assert type(read) is Narrow
    lists = [recommender_of(model).recommend(split.test.histories, 3).items for model in (trained.network, read)]
    assert np.array_equal(*lists)


def test_a_reranker_is_chosen_by_its_name(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"base": "markov", "scaling": "raw", "weights": [0.5], "goals": ["ndcg=1"]}
    for refused in (lambda: RerankConfig(method="worst", weight=0.5), lambda: Rerank(method="worst", **row)):
        with pytest.raises(ValidationError, match="none of mmr, ild, pcount"):
            refused()
    monkeypatch.setitem(RERANKERS, "worst", Reranker(worst, "popularity"))
    assert Rerank(method="worst", **row).method == "worst"
    reranked = Reranked(MarkovChain(split), RerankConfig(method="worst", weight=0.5, n_candidates=4), split)
    best = MarkovChain(split).recommend(split.test.histories, 4).items
    assert np.array_equal(reranked.recommend(split.test.histories, 3).items, best[:, 1:])


def test_a_reranker_that_sorts_its_candidates_is_refused(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def sorts(of: Candidates, popularity: np.ndarray, weight: float, k: int) -> tuple[np.ndarray, np.ndarray]:
        of.items.sort(axis=1)
        return of.items[:, :k], of.scores[:, :k]

    monkeypatch.setitem(RERANKERS, "sorts", Reranker(sorts, "popularity"))
    reranked = Reranked(MarkovChain(split), RerankConfig(method="sorts", weight=0.5, n_candidates=4), split)
    with pytest.raises(ValueError, match="read-only"):
        reranked.recommend(split.test.histories, 3)


@pytest.mark.parametrize("name", ["items", "ground_truth", "popular", "genres", "frequencies", "n_users_of_item"])
def test_a_metric_that_changes_what_others_measure_is_refused(
    name: str, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(of: Lists, k: int) -> np.ndarray:
        getattr(of, name).fill(1)
        return np.zeros(len(of.items))

    monkeypatch.setitem(DEFINITIONS, "Changes", Definition(changes, higher_is_better=True))
    with pytest.raises(ValueError, match="read-only"):
        evaluated(split)


def test_a_metric_is_measured_for_every_list(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "FirstGenres@3" not in evaluated(split).per_user
    monkeypatch.setitem(DEFINITIONS, "FirstGenres", Definition(first_genres, higher_is_better=True))
    table = evaluated(split)
    expected = split.catalogue.genres[MarkovChain(split).recommend(split.test.histories, 1).items[:, 0] - 1].sum(axis=1)
    assert table.per_user["FirstGenres@3"].tolist() == expected.tolist()
    assert table.summary()["FirstGenres@3"] == expected.mean()
    assert "FirstGenres@3" in [metric.name for metric in beyond_at(3)]
