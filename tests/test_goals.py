"""Goals as text, the functions behind their names, and what is refused of a user's own reward."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl import rewards
from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.goals import SHIPPED, Goal, build_rewards, compute_rewards, parse_goal, parse_sweep, weighted_sum
from gptrec_rl.kinds import recommender_of
from gptrec_rl.models.network import Network
from gptrec_rl.rewards import Reward
from gptrec_rl.store.trained_models import load_scorer, save_policy

SLATES = np.array([[[1, 2], [2, 3]], [[3, 1], [1, 3]], [[2, 1], [3, 2]]])  # B = 3, G = 2, K = 2
TRUTH = np.array([2, 3, 1])


def make_split(genres: list[list[int]]) -> Split:
    names = np.array(["a", "b", "c"])
    catalogue = Catalogue(names, names, ("comedy", "drama"), np.array(genres, dtype=bool))
    users = np.array(["u", "v", "w"])
    histories = Histories.of([[1, 2, 3], [1, 3, 2], [2, 3, 1]])
    return Split(Interactions(catalogue, users, histories, "tiny"), np.array([0]))


@pytest.fixture
def split() -> Split:
    return make_split([[1, 0], [0, 1], [1, 1]])


def computed(split: Split, **named: Reward) -> dict[str, np.ndarray]:
    return compute_rewards(named, SLATES, TRUTH, Histories.of([[], [], []]), split.catalogue)


def test_goal_keeps_the_order_and_reads_negative_and_scientific_weights() -> None:
    goal = parse_goal(" ndcg = 1, pcount=-2e1,my.module:novelty=0.3")
    assert list(goal.weights.items()) == [("ndcg", 1.0), ("pcount", -20.0), ("my.module:novelty", 0.3)]
    assert str(goal) == "ndcg=1,pcount=-20,my.module:novelty=0.3"


@given(
    st.dictionaries(st.sampled_from(SHIPPED), st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)
)
def test_a_goal_survives_being_written_and_read(weights: dict[str, float]) -> None:
    assert parse_goal(str(Goal(weights))) == Goal(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndgc=1", "unknown reward 'ndgc'; did you mean 'ndcg'?"),
        ("ndcg=1,ilds=2", "did you mean 'ild'?"),
        ("NDCG=1,ILD=2", "did you mean 'ndcg'?"),
        ("ILD=2", "did you mean 'ild'?"),
        ("ndcg=1,ndcg=2", "has ndcg more than once"),
        ("ndcg=nan", "weight 'nan' of reward ndcg is not a finite number"),
        ("ndcg=inf", "weight 'inf' of reward ndcg"),
        ("ndcg=much", "weight 'much' of reward ndcg"),
        ("ndcg=", "weight '' of reward ndcg"),
        ("ndcg", "'ndcg' is not name=weight; write it like"),
        ("", "'' is not name=weight"),
        ("ndcg=1,", "'' is not name=weight"),
    ],
)
def test_a_bad_goal_names_the_part_and_the_remedy(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_goal(text)


def test_a_sweep_is_the_goal_with_each_weight_in_turn() -> None:
    goals = parse_sweep("ild=0,0.2,3", parse_goal("ndcg=1,ild=9"))
    assert [str(goal) for goal in goals] == ["ndcg=1,ild=0", "ndcg=1,ild=0.2", "ndcg=1,ild=3"]
    assert [str(goal) for goal in parse_sweep("pcount=6", parse_goal("ndcg=1"))] == ["ndcg=1,pcount=6"]


def test_a_weight_that_a_sweep_has_twice_is_named() -> None:
    with pytest.raises(InputError, match="has ndcg=1,ild=1 twice"):
        parse_sweep("ild=1,0.5,1.0", parse_goal("ndcg=1"))


@pytest.mark.parametrize("text", ["ild", "illd=1,2", "ild=1,,2", "ild=1,x"])
def test_a_bad_sweep_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_sweep(text, parse_goal("ndcg=1"))


def test_the_shipped_names_are_the_shipped_functions(split: Split) -> None:
    names = [name for name in SHIPPED if name != "expected_ndcg"]
    built = build_rewards(names, split)
    assert list(built) == names
    assert (built["ndcg"], built["ild"], built["calibration"]) == (rewards.ndcg, rewards.ild, rewards.calibration)
    # Training: u (validation user) keeps item 1, v keeps 1 and 3, w keeps 2 and 3: frequencies 2/5, 1/5, 2/5.
    charged = built["pcount"](np.array([[[1, 2, 3]]]), np.array([1]), Histories.of([[]]), split.catalogue)
    np.testing.assert_allclose(charged, [[[-0.4, -0.2, -0.4]]], atol=1e-7)


def test_expected_ndcg_asks_the_reward_model(
    split: Split, make_network: Callable[..., Network], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="name its folder with --reward-model"):
        build_rewards(["expected_ndcg"], split)
    model = make_network("sasrec", n_items=split.catalogue.n_items)
    origin = {"catalogue_hash": split.catalogue.hash, "split_hash": split.hash, "config": {}}
    save_policy(tmp_path / "model", model.to_files(), step=1, **origin)
    reward = build_rewards(["expected_ndcg"], split, lambda: load_scorer(tmp_path, split.catalogue))["expected_ndcg"]
    histories, lists = Histories.of([[1], []]), np.array([[[2, 3], [3, 2]], [[1, 2], [2, 3]]])
    scores = recommender_of(model, "top-k").score(histories)
    shares = np.exp(scores)
    shares[0, 0] = 0  # the first history holds item 1
    shares /= shares.sum(axis=1, keepdims=True)
    expected = [[[shares[b, i - 1] / np.log2(p + 2) for p, i in enumerate(g)] for g in lists[b]] for b in range(2)]
    gains = reward(lists, np.array([9, 9]), histories, split.catalogue)
    assert gains.dtype == np.float32
    np.testing.assert_allclose(gains, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["ild", "calibration"])
def test_goals_of_genres_need_genres(name: str) -> None:
    split = make_split([[1, 0], [0, 0], [1, 1]])
    with pytest.raises(InputError, match=r"'b'.* has no genre \(1 of 3"):
        build_rewards(parse_goal(f"ndcg=1,{name}=1"), split)
    assert list(build_rewards(parse_goal("ndcg=1,pcount=1"), split)) == ["ndcg", "pcount"]


def test_a_users_own_reward_is_found_by_import_path(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "limit = 3\ndef first(slates, ground_truth, histories, catalogue):\n    return slates[:, :, 0]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    built = build_rewards(parse_goal("ndcg=1,own_rewards:first=0.5"), split)
    arrays = compute_rewards(built, SLATES, TRUTH, Histories.of([[], [], []]), split.catalogue)
    assert arrays["own_rewards:first"].tolist() == [[[0, 1], [0, 2]], [[0, 3], [0, 1]], [[0, 2], [0, 3]]]
    with pytest.raises(InputError, match="'missing' in own_rewards is not there"):
        build_rewards(["own_rewards:missing"], split)
    with pytest.raises(InputError, match="'limit' in own_rewards is not callable"):
        build_rewards(["own_rewards:limit"], split)


def test_a_module_that_is_not_there_is_explained(split: Split) -> None:
    with pytest.raises(InputError, match=r"module 'no_such_package.rewards' can't be imported .* PYTHONPATH"):
        build_rewards(["no_such_package.rewards:novelty"], split)


def test_rewards_per_place_and_per_list_both_arrive_per_place(split: Split) -> None:
    whole = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    arrays = computed(split, whole=lambda *_: whole, ndcg=rewards.ndcg)
    assert arrays["whole"].shape == arrays["ndcg"].shape == SLATES.shape
    assert arrays["whole"].dtype == arrays["ndcg"].dtype == np.float32
    np.testing.assert_allclose(arrays["whole"][:, :, -1], whole, atol=1e-7)
    assert not arrays["whole"][:, :, :-1].any()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((3, 2, 3)), "reward 'mine' returned shape (3, 2, 3) of float64; return numbers of shape (3, 2, 2)"),
        (np.zeros(3), "returned shape (3,)"),
        (0.5, "returned shape ()"),
        (np.full((3, 2), "x"), "of <U1"),
        (np.full((3, 2), None), "of object"),
    ],
)
def test_a_reward_of_the_wrong_shape_or_type_is_refused(split: Split, returned: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        computed(split, mine=lambda *_: returned)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 2)])
def test_a_reward_that_is_not_finite_names_the_list(split: Split, bad: float, shape: tuple[int, ...]) -> None:
    returned = np.zeros(shape)
    returned[1, 0] = bad
    with pytest.raises(InputError, match=re.escape(f"reward 'mine' returned {bad} for list [3, 1]")):
        computed(split, mine=lambda *_: returned)


def test_a_weighted_sum_by_hand() -> None:
    arrays = {"ndcg": np.array([[[0.0, 1.0]]], np.float32), "ild": np.array([[[0.5, 0.25]]], np.float32)}
    total = weighted_sum(arrays, parse_goal("ndcg=2,ild=0.5"))
    np.testing.assert_allclose(total, [[[0.25, 2.125]]])  # 2 * 0 + 0.5 * 0.5; 2 * 1 + 0.5 * 0.25
    assert total.dtype == np.float32


def test_a_goal_over_rewards_that_the_rollout_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="needs reward 'ild', and the rollout carries ndcg"):
        weighted_sum({"ndcg": np.zeros((1, 1, 2), np.float32)}, parse_goal("ndcg=1,ild=1"))


def test_an_own_reward_that_fails_is_named(split: Split) -> None:
    def broken(slates: np.ndarray, *_: object) -> np.ndarray:
        raise KeyError("year")

    with pytest.raises(InputError, match="reward 'mine' failed with KeyError: 'year'; it is called as"):
        computed(split, mine=broken)


@pytest.mark.parametrize(
    "changes",
    [
        lambda slates, truth, histories, catalogue: slates.sort(axis=-1),
        lambda slates, truth, histories, catalogue: np.subtract(slates, 1, out=slates),
        lambda slates, truth, histories, catalogue: truth.fill(1),
        lambda slates, truth, histories, catalogue: histories.values.fill(1),
        lambda slates, truth, histories, catalogue: catalogue.genres.fill(True),
        lambda slates, truth, histories, catalogue: catalogue.columns["price"].sort(),
    ],
)
def test_an_own_reward_that_changes_what_it_is_given_is_named(split: Split, changes: Callable[..., object]) -> None:
    priced = Catalogue(
        split.catalogue.item_ids, split.catalogue.titles, ("a", "b"), split.catalogue.genres, {"price": np.ones(3)}
    )
    slates, truth, histories = SLATES.copy(), TRUTH.copy(), Histories.of([[1], [2], [3]])
    with pytest.raises(InputError, match=r"reward 'mine' changes an array that it is given.*slates\.copy\(\)"):
        compute_rewards({"mine": changes}, slates, truth, histories, priced)
    assert np.array_equal(slates, SLATES)
    assert slates.flags.writeable  # ours to change


def test_what_an_own_reward_does_to_its_arrays_all_the_same_is_seen_by_nobody(split: Split) -> None:
    def unlocks(slates: np.ndarray, truth: np.ndarray, histories: Histories, catalogue: Catalogue) -> np.ndarray:
        for array in (slates, truth, histories.values):
            torch.from_numpy(array).fill_(1)  # which PyTorch warns of, and does
        return slates[..., 0]

    slates, truth, histories = SLATES.copy(), TRUTH.copy(), Histories.of([[2], [3], [2]])
    with pytest.warns(UserWarning, match="not writable"):
        values = compute_rewards({"mine": unlocks, "ndcg": rewards.ndcg}, slates, truth, histories, split.catalogue)
    assert np.array_equal(slates, SLATES)
    assert np.array_equal(truth, TRUTH)
    assert histories.values.tolist() == [2, 3, 2]
    # The first list of user 0 is [1, 2], and 2 is held out: 1 / log2(3) on the second place.
    np.testing.assert_allclose(values["ndcg"][0, 0], [0, 0.63093], atol=1e-5)


@pytest.mark.parametrize("returned", [[[1.0, 2.0], [3.0]], torch.zeros(3, 2, requires_grad=True)])
def test_what_an_own_reward_returns_instead_of_an_array_is_named(split: Split, returned: object) -> None:
    with pytest.raises(InputError, match=r"reward 'mine' returned a \w+ that is no array .*return a NumPy array"):
        computed(split, mine=lambda *_: returned)  # type: ignore[arg-type,return-value]


def test_an_own_reward_that_ends_its_process_is_named(split: Split) -> None:
    with pytest.raises(InputError, match="reward 'mine' failed with SystemExit"):
        computed(split, mine=lambda *_: sys.exit(0))


def test_an_own_reward_gives_the_catalogue_no_columns(split: Split) -> None:
    def adds(slates: np.ndarray, truth: np.ndarray, histories: Histories, catalogue: Catalogue) -> np.ndarray:
        catalogue.columns["price"] = np.ones(3)  # type: ignore[index]
        return slates

    with pytest.raises(InputError, match="reward 'mine' failed with TypeError"):
        computed(split, mine=adds)


def test_what_an_own_reward_returns_is_not_shared_with_it(split: Split) -> None:
    kept = np.zeros(SLATES.shape, dtype=np.float32)
    values = computed(split, mine=lambda *_: kept)["mine"]
    kept.fill(9)
    assert not values.any()


def test_a_reward_too_large_to_be_sent_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match="returned inf for list"):
        computed(split, mine=lambda slates, *_: np.full(slates.shape, 1e300))
