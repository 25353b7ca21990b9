"""The public face: a model and its data, which take and give the ids of the user's own file.

Everything below counts items from 1 to I (*item numbers*) and users by their rows; here nothing does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import numpy as np
import pandas as pd

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories, Interactions, Split, SplitConfig
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.evaluation import evaluate as evaluate_recommender
from gptrec_rl.recommender import Strategy
from gptrec_rl.runs.lists import Lists
from gptrec_rl.runs.models import ModelChoice

if TYPE_CHECKING:
    from gptrec_rl.recommender import Recommender

T = TypeVar("T")
Id = str | int
"""An id of the user's file, which is a text; a whole number stands for its text."""


@dataclass(frozen=True)
class Model:
    """A recommender, with the data whose ids it takes and gives.

    Attributes:
        name: of the model, for tables.
        split: the data, and what of it is held out.
        recommender: the model below, which takes and gives item numbers.
    """

    name: str
    split: Split
    recommender: Recommender

    def recommend(
        self, histories: Iterable[Sequence[Id]], k: int = 10, allowed: Iterable[Id] | None = None
    ) -> pd.DataFrame:
        """Recommend items to histories.

        Args:
            histories: item ids, oldest first; an empty one is a new user.
            k: items a list; fewer where a history leaves fewer.
            allowed: ids of the items that may be recommended; None allows all.

        Returns:
            A row an item of a list: `history` (its place, from 0), `rank` (from 1), `item` (id), `title`, `genres`
            (`a|b`) and `score`, whatever the model ranks by.

        Raises:
            InputError: an id is unknown, or none.
        """
        _require_count("k", k)
        numbers = Histories.of([self._numbers(history) for history in _several(histories, "histories")])
        return self._lists(numbers, np.arange(len(numbers)), k, allowed).rename(columns={"user": "history"})

    def recommend_users(self, users: Iterable[Id], k: int = 10, allowed: Iterable[Id] | None = None) -> pd.DataFrame:
        """Recommend items to users of the data, whose whole histories are read; see `recommend`.

        Returns:
            As `recommend`, with `user` (id) in the place of `history`.
        """
        _require_count("k", k)
        interactions = self.split.interactions
        rows = np.array([interactions.row(_text(user)) for user in _several(users, "user ids")], dtype=np.int64)
        return self._lists(interactions.histories.take(rows), interactions.user_ids[rows], k, allowed)

    def evaluate(self, k: int = 10, n_users: int | None = None, seed: int = 0) -> EvaluationTable:
        """Ask for the item that each user had last.

        Args:
            k: items a list; users with fewer left are left out.
            n_users: measure a sample of so many users; None: all.
            seed: of the sample.

        Raises:
            InputError: an argument is out of range, or nobody has so many items left.
        """
        _require_count("k", k)
        cases = self.split.test.with_room(k, self.split.catalogue.n_items)
        if not len(cases.users):
            raise InputError(f"a list of k = {k} items can't be made for any user: fewer are left; give a smaller one")
        if n_users is not None:
            _require_count("n_users", n_users)
            _require_count("seed", seed, least=0)
            cases = cases.sample(n_users, seed)
        return evaluate_recommender(self.recommender, cases, self.split, name=self.name, k=k)

    def _numbers(self, ids: Iterable[Id]) -> np.ndarray:
        items = _several(ids, "item ids")
        return np.array([self.split.catalogue.internal(_text(item)) for item in items], dtype=np.int32)

    def _lists(self, histories: Histories, names: np.ndarray, k: int, allowed: Iterable[Id] | None) -> pd.DataFrame:
        from gptrec_rl.recommender import batches

        may = None
        if allowed is not None:
            may = np.zeros(self.split.catalogue.n_items, dtype=bool)
            may[self._numbers(allowed) - 1] = True
        lists = Lists(self.recommender, self.split.catalogue, k, may)
        parts = batches(max(len(histories), 1), self.split.catalogue.n_items)
        tables = [lists.of(histories.take(rows), names[rows]) for rows in parts if len(histories)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(Lists.COLUMNS))


def load(
    model: str | PathLike[str],
    data: str | PathLike[str],
    *,
    split: SplitConfig | None = None,
    strategy: Strategy | None = None,
    precision: Precision = "auto",
) -> Model:
    """Load a model and the data that it is asked about.

    Args:
        model: markov, popularity, or the folder of a trained model, a policy or a run.
        data: a file of `gptrec-rl data prepare`.
        split: what of the data was held out when the model was trained; None: the default.
        strategy: "next-k" writes a list item by item, "top-k" sorts by score; None: what the model is trained for.
        precision: of matrix products.

    Raises:
        InputError: there is no such model or data, or the model is of another catalogue.
    """
    for name, given, known in (
        ("strategy", strategy, (None, *get_args(Strategy))),
        ("precision", precision, get_args(Precision)),
    ):
        if given not in known:
            raise InputError(f"{name} is {given!r}; give one of {', '.join(map(repr, known))}")
    data_split = Split.of(Interactions.load(Path(data)), split)
    choice = ModelChoice.parse(str(model))
    return Model(choice.name, data_split, choice.open(data_split, strategy, precision))


def _require_count(name: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number, {least} or more")


def _several(values: Iterable[T], what: str) -> Iterable[T]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{values!r} is one id; give a sequence of {what}, like [{values!r}]")
    return values


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{value!r} is no id; give a text as it stands in the data, or a whole number")
