"""MF-BPR: whose factors a history gets, and what becomes of strangers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.decoding import Appending
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import recommender_of
from gptrec_rl.models.bpr import MatrixFactorization


@pytest.fixture
def model() -> MatrixFactorization:
    """Return a model of 8 items whose users' training histories are [1, 2, 3], [1, 2, 3, 4, 5], [6] and [7, 8]."""
    ids = np.array([str(item) for item in range(1, 9)])
    histories = Histories.of([[1, 2, 3, 8], [1, 2, 3, 4, 5, 7], [6, 3], [7, 8, 1, 2]])
    interactions = Interactions(Catalogue(ids, ids), np.array(["a", "b", "c", "d"]), histories, "four users")
    torch.manual_seed(0)
    model = MatrixFactorization.create(Split(interactions, np.array([3])), 4)
    with torch.no_grad():
        model.item_factors += torch.randn(model.item_factors.shape)
        model.user_factors[:, :-1] += torch.randn(4, 4)
    return model


def scores_of(model: MatrixFactorization, user: int) -> np.ndarray:
    p, q = model.user_factors.numpy()[user], model.item_factors.numpy()
    return q[:, :4] @ p[:4] + q[:, 4]  # p . q and the item's bias


@pytest.mark.parametrize(
    ("history", "user"),
    [
        ([1, 2, 3], 0),
        ([1, 2, 3, 6], 0),  # an item later
        ([1, 2, 3, 6, 7, 8], 0),  # half of it
        ([1, 2, 3, 4, 5], 1),
        ([1, 2, 3, 4, 5, 8], 1),  # begins with [1, 2, 3] as well
        ([6], 2),
        ([7, 8, 1], 3),  # the validation user, with the validation item
    ],
)
def test_a_history_that_goes_on_from_training_has_its_users_factors(
    history: list[int], user: int, model: MatrixFactorization
) -> None:
    np.testing.assert_allclose(model.score([history])[0], scores_of(model, user), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history", [[3, 2, 1], [1, 2], [6, 1, 2], [1, 2, 3, 6, 7, 8, 4]])
def test_a_stranger_has_the_mean_of_the_items_less_the_mean_of_all(
    history: list[int], model: MatrixFactorization
) -> None:
    q = model.item_factors.numpy()
    trained_on = np.array([1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8])
    factors = q[np.array(history) - 1, :4].mean(axis=0) - q[trained_on - 1, :4].mean(axis=0)
    np.testing.assert_allclose(model.score([history])[0], q[:, :4] @ factors + q[:, 4], rtol=1e-4, atol=1e-5)


def test_a_new_user_is_ranked_by_biases(model: MatrixFactorization) -> None:
    np.testing.assert_allclose(model.score([[]])[0], model.item_factors[:, 4].numpy(), rtol=1e-6)


def test_a_batch_scores_as_its_histories_do_alone(model: MatrixFactorization) -> None:
    histories = [[1, 2, 3], [], [4, 4, 8], [6], [5, 1]]
    scores = model.score(histories)
    assert (scores.shape, scores.dtype) == ((5, 8), np.float32)
    for row, history in zip(scores, histories, strict=True):
        np.testing.assert_allclose(row, model.score([history])[0], rtol=1e-5, atol=1e-6)
    assert model.score([]).shape == (0, 8)


def test_next_k_writes_a_known_users_top_k(model: MatrixFactorization) -> None:
    next_k = recommender_of(model, "next-k")
    assert isinstance(next_k, Appending)
    histories = [[1, 2, 3, 4, 5], [1, 2, 3]]
    assert np.array_equal(next_k.recommend(histories, 3).items, recommender_of(model).recommend(histories, 3).items)


def test_files_round_trip_without_histories(model: MatrixFactorization) -> None:
    files = model.to_files()
    assert set(load(files["model.safetensors"])) == {"user_factors", "item_factors", "user_keys", "frequencies"}
    loaded = MatrixFactorization.from_files(files)
    assert loaded.to_files() == files
    histories = [[1, 2, 3], [], [4, 8]]
    np.testing.assert_array_equal(loaded.score(histories), model.score(histories))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"recommender": "sasrec"}, "they are of a sasrec"),
        ({"n_items": 9}, "another shape"),
        ({"n_factors": "many"}, "many"),
        ({"n_users": None}, "NoneType"),
    ],
)
def test_another_configuration_is_refused(
    settings: dict[str, object], complaint: str, model: MatrixFactorization
) -> None:
    files = model.to_files()
    config = json.loads(files["config.json"]) | settings
    with pytest.raises(InputError, match=complaint):
        MatrixFactorization.from_files(files | {"config.json": json.dumps(config).encode()})


def test_damaged_files_are_refused(model: MatrixFactorization) -> None:
    files = model.to_files()
    for damage in ({"config.json": b"[]"}, {"config.json": b"{"}, {"model.safetensors": b"x"}):
        with pytest.raises(InputError, match="not the files of an MF-BPR"):
            MatrixFactorization.from_files(files | damage)
    tensors = load(files["model.safetensors"])
    tensors["user_factors"][1, 1] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        MatrixFactorization.from_files(files | {"model.safetensors": save(tensors)})
