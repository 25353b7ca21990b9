"""The public face: the ids of the user's file, in and out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptrec_rl
from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import evaluate
from gptrec_rl.models.markov import MarkovChain

IDS = np.array(["50", "20", "30", "10", "40", "60"])  # item number 1 is called 50
HISTORIES = [[1, 2, 3, 4], [1, 2, 3, 5], [2, 3, 4, 1], [3, 4, 1, 2], [2, 3, 1], [1, 2, 6]]
USERS = ["u", "v", "w", "x", "y", "7"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    titles = np.array([f"title of {item}" for item in IDS])
    catalogue = Catalogue(IDS, titles, ("a",), np.ones((6, 1), dtype=bool))
    Interactions(catalogue, np.array(USERS), Histories.of(HISTORIES), "d").save(tmp_path / "d.npz")
    return tmp_path / "d.npz"


def chain(data: Path) -> tuple[Split, MarkovChain]:
    split = Split.of(Interactions.load(data))
    return split, MarkovChain(split)


def test_a_history_of_the_files_ids_gets_a_list_of_the_files_ids(data: Path) -> None:
    lists = gptrec_rl.load("markov", data).recommend([["50", "20"], []], k=3)
    expected = chain(data)[1].recommend([[1, 2], []], 3)
    assert lists["item"].tolist() == IDS[expected.items.ravel() - 1].tolist()
    assert lists["title"].tolist() == [f"title of {item}" for item in lists["item"]]
    assert lists["history"].tolist() == [0, 0, 0, 1, 1, 1]
    assert lists["rank"].tolist() == [1, 2, 3, 1, 2, 3]
    np.testing.assert_allclose(lists["score"], expected.scores.ravel(), rtol=1e-6)
    assert not {"50", "20"} & set(lists["item"][:3])


def test_a_number_stands_for_its_text_and_never_for_a_place(data: Path) -> None:
    model = gptrec_rl.load("markov", data)
    assert model.recommend([[50, np.int64(20)]], k=3).equals(model.recommend([["50", "20"]], k=3))
    assert model.recommend_users([7], k=2)["user"].tolist() == ["7", "7"]
    with pytest.raises(InputError, match="unknown item '1'"):
        model.recommend([[1]], k=1)


@pytest.mark.parametrize("history", [[50.0], [True], [None], [b"50"], "50"])
def test_what_is_no_id_is_refused(history: object, data: Path) -> None:
    with pytest.raises(InputError, match=r"is no id|is one id"):
        gptrec_rl.load("markov", data).recommend([history], k=1)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: model.recommend([["50"]], k=-1), "k is -1; give a whole number, 1 or more"),
        (lambda model: model.recommend([["50"]], k=1.5), "k is 1.5"),
        (lambda model: model.recommend_users(["u"], k="3"), "k is '3'"),
        (lambda model: model.recommend([1, 2]), "1 is one id; give a sequence of item ids"),
        (lambda model: model.recommend(7), "7 is one id; give a sequence of histories"),
        (lambda model: model.recommend_users("12"), "'12' is one id; give a sequence of user ids"),
        (lambda model: model.evaluate(k=0), "k is 0"),
        (lambda model: model.evaluate(k=100), "a list of k = 100 items can't be made for any user"),
        (lambda model: model.evaluate(k=1, n_users=-1), "n_users is -1"),
        (lambda model: model.evaluate(k=1, n_users=3, seed=-1), "seed is -1; give a whole number, 0 or more"),
    ],
)
def test_an_argument_out_of_range_is_named(ask: Callable[[Any], object], message: str, data: Path) -> None:
    with pytest.raises(InputError, match=message):
        ask(gptrec_rl.load("markov", data))


@pytest.mark.parametrize("settings", [{"strategy": "nextk"}, {"precision": "fp16"}])
def test_a_way_that_there_is_not_is_named(settings: dict[str, Any], data: Path) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings.values()))!r}; give one of"):
        gptrec_rl.load("markov", data, **settings)


def test_an_item_that_stands_in_a_history_more_than_once_is_one(data: Path) -> None:
    model = gptrec_rl.load("popularity", data)
    once = model.recommend([["50"]], k=3)
    assert model.recommend([["50"] * 40], k=3).equals(once)


def test_users_are_named_by_their_ids_and_their_whole_histories_are_read(data: Path) -> None:
    lists = gptrec_rl.load("markov", data).recommend_users(["w", "u"], k=2)
    assert lists["user"].tolist() == ["w", "w", "u", "u"]
    assert set(lists[lists["user"] == "w"]["item"]) == {"40", "60"}  # all that w hasn't had
    with pytest.raises(InputError, match="unknown user 'nobody'"):
        gptrec_rl.load("markov", data).recommend_users(["nobody"])


def test_only_allowed_items_and_fewer_where_there_are_fewer(data: Path) -> None:
    lists = gptrec_rl.load("popularity", data).recommend([["50"], []], k=3, allowed=["50", "30", 10])
    assert [set(lists[lists["history"] == place]["item"]) for place in (0, 1)] == [{"30", "10"}, {"50", "30", "10"}]


def test_no_histories_get_no_lists(data: Path) -> None:
    lists = gptrec_rl.load("popularity", data).recommend([])
    assert list(lists.columns) == ["history", "rank", "item", "title", "genres", "score"]
    assert lists.empty


def test_it_measures_as_the_library_does(data: Path) -> None:
    split, markov = chain(data)
    expected = evaluate(markov, split.test, split, name="markov", k=2).summary()
    assert gptrec_rl.load("markov", data).evaluate(k=2).summary() == pytest.approx(expected)
    assert len(gptrec_rl.load("markov", data).evaluate(k=2, n_users=3).user_ids) == 3


def test_importing_the_package_loads_no_torch_and_it_runs_as_a_module() -> None:
    program = "import sys, gptrec_rl; gptrec_rl.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    said = subprocess.run([sys.executable, "-m", "gptrec_rl", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"gptrec-rl, version {gptrec_rl.__version__}\n"


def test_the_package_index_is_told_what_it_asks_for() -> None:
    told = metadata("gptrec-rl")
    assert told["License-Expression"] == "MIT"
    assert told["Author"] == "gptrec-rl developers"
    assert told["Requires-Python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in told.get_all("Classifier", [])
