"""Goals such as `ndcg=1,ild=0.5`: which rewards stage 2 tunes for, and with what weights (lambda in section 3.5).

Generators ship one unweighted array per reward; the optimiser weighs them, so one rollout serves any goal over the
same rewards.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gptrec_rl import rewards as shipped
from gptrec_rl.data import Catalogue, Histories, Split
from gptrec_rl.data.histories import locked
from gptrec_rl.errors import InputError, nearest
from gptrec_rl.rewards import Reward, place_on_last

if TYPE_CHECKING:
    from gptrec_rl.recommender import ScoringRecommender

SHIPPED = ("ndcg", "ild", "pcount", "calibration", "expected_ndcg")
FROM_GENRES = ("ild", "calibration")
LARGEST_WEIGHT = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Goal:
    """A weighted sum of rewards.

    Attributes:
        weights: weight of each reward, in the order given; names are those of `SHIPPED` or `package.module:function`.
    """

    weights: Mapping[str, float]

    def __str__(self) -> str:
        """Return the goal as `parse_goal` reads it."""
        return ",".join(f"{name}={np.format_float_positional(w, trim='-')}" for name, w in self.weights.items())

    def with_weight(self, name: str, weight: float) -> Goal:
        """Return this goal with another weight for one reward, which is added if it isn't there."""
        return Goal({**self.weights, name: weight})


def parse_goal(text: str) -> Goal:
    """Read a goal as it is written on the command line.

    Raises:
        InputError: a part isn't name=weight, a name is unknown or given twice, or a weight isn't a finite number.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"goal {text!r}: {part.strip()!r} is not name=weight; write it like ndcg=1,ild=0.5")
        if name in weights:
            raise InputError(f"goal {text!r} has {name} more than once; give it one weight")
        weights[_known(name)] = _weight(name, value)
    return Goal(weights)


def parse_sweep(text: str, goal: Goal) -> list[Goal]:
    """Read a sweep such as `ild=0,0.2,1,3`: the goal once for each weight of that reward, in the order given.

    Raises:
        InputError: it isn't name=weight,weight,..., the name is unknown, or a weight isn't a finite number.
    """
    name, equals, values = (piece.strip() for piece in text.partition("="))
    if not equals:
        raise InputError(f"sweep {text!r} is not name=weight,weight,...; write it like ild=0,0.2,1,3")
    goals = [goal.with_weight(_known(name), _weight(name, value.strip())) for value in values.split(",")]
    named = [str(each) for each in goals]
    if twice := [each for place, each in enumerate(named) if each in named[:place]]:
        raise InputError(f"sweep {text!r} has {twice[0]} twice; give each weight once")
    return goals


def _known(name: str) -> str:
    if name in SHIPPED or ":" in name:
        return name
    raise InputError(
        f"unknown reward {name!r}; did you mean {nearest(name, SHIPPED)!r}? There are {', '.join(SHIPPED)}, and your "
        "own as package.module:function"
    )


def _weight(name: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= LARGEST_WEIGHT:
        raise InputError(
            f"weight {value!r} of reward {name} is not a finite number (of 32 bits); give one, like {name}=0.5"
        )
    return weight


def build_rewards(
    names: Goal | Iterable[str], split: Split, open_scorer: Callable[[], ScoringRecommender] | None = None
) -> dict[str, Reward]:
    """Find the function behind each name.

    Args:
        names: a goal, or names as in `Goal.weights`.
        split: where PCOUNT's frequencies come from, and the catalogue whose genres ILD and calibration need.
        open_scorer: returns the trained model that `expected_ndcg` asks; called if that is among the names.

    Raises:
        InputError: a name is unknown or can't be imported, an item lacks the genres that a reward needs, or there is no
            reward model where one is needed.
    """
    return {name: _build(name, split, open_scorer) for name in (names.weights if isinstance(names, Goal) else names)}


def _build(name: str, split: Split, open_scorer: Callable[[], ScoringRecommender] | None) -> Reward:
    if ":" in name:
        return _import(name)
    if _known(name) in FROM_GENRES:
        split.catalogue.require_genres()
    if name == "expected_ndcg":
        if open_scorer is None:
            raise InputError(
                "the reward expected_ndcg asks a trained model, and none is given; name its folder with --reward-model"
            )
        return shipped.ExpectedNdcg(open_scorer())
    if name == "pcount":
        return shipped.PCount(split.frequencies)
    return {"ndcg": shipped.ndcg, "ild": shipped.ild, "calibration": shipped.calibration}[name]


def _import(name: str) -> Reward:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # somebody else's module: whatever it raises, the message has to name it
        raise InputError(
            f"reward {name!r}: module {module_name!r} can't be imported ({error}); install it, or put its folder on "
            "PYTHONPATH"
        ) from error
    reward = getattr(module, attribute, None)
    if not callable(reward):
        what = "is not callable" if hasattr(module, attribute) else "is not there"
        raise InputError(
            f"reward {name!r}: {attribute!r} in {module_name} {what}; name a function "
            "reward(slates, ground_truth, histories, catalogue)"
        )
    function: Reward = reward
    return function


def compute_rewards(
    rewards: Mapping[str, Reward],
    slates: np.ndarray,
    ground_truth: np.ndarray,
    histories: Histories,
    catalogue: Catalogue,
) -> dict[str, np.ndarray]:
    """Compute each reward for each place of each list; those of whole lists go on the last place (equation 2).

    Args:
        rewards: from `build_rewards`.
        slates: [B, G, K] int, items 1..I.
        ground_truth: [B] int.
        histories: B whole histories.
        catalogue: the items' features.

    Returns:
        Unweighted arrays by name, each [B, G, K] float32.

    Raises:
        InputError: a reward fails, changes what it is given (which is read-only), or returns another shape, no numbers,
            or values that aren't finite.
    """
    return {
        name: _checked(name, _call(name, reward, slates, ground_truth, histories, catalogue), slates)
        for name, reward in rewards.items()
    }


def _call(
    name: str,
    reward: Reward,
    slates: np.ndarray,
    ground_truth: np.ndarray,
    histories: Histories,
    catalogue: Catalogue,
) -> object:
    # PyTorch writes into read-only arrays, too: these are a reward's own, and the learner's stay as they are.
    slates, ground_truth = locked(slates.copy()), locked(ground_truth.copy())
    histories = Histories(locked(histories.values.copy()), locked(histories.offsets.copy()))
    try:
        return reward(slates, ground_truth, histories, catalogue)
    except (
        Exception,
        SystemExit,
    ) as error:  # somebody else's code: whatever it raises, the message has to name the reward
        if "read-only" in str(error):
            raise InputError(
                f"reward {name!r} changes an array that it is given ({error}); work on a copy, like slates.copy()"
            ) from error
        raise InputError(
            f"reward {name!r} failed with {type(error).__name__}: {error}; it is called as "
            f"reward(slates, ground_truth, histories, catalogue) with slates of shape {slates.shape}"
        ) from error


def _checked(name: str, returned: object, slates: np.ndarray) -> np.ndarray:
    try:
        values = np.asarray(returned)
    except Exception as error:  # rows of unequal lengths, a tensor on a GPU or with gradients
        raise InputError(
            f"reward {name!r} returned a {type(returned).__name__} that is no array ({error}); return a NumPy array"
        ) from error
    per_list, per_place = slates.shape[:2], slates.shape
    if values.shape not in (per_list, per_place) or values.dtype.kind not in "fiub":
        raise InputError(
            f"reward {name!r} returned shape {values.shape} of {values.dtype}; return numbers of shape {per_place}, "
            f"one a place, or {per_list}, one a list"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)  # as it is sent, where 1e300 is no finite number
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        place = tuple(int(index) for index in bad[0])
        raise InputError(
            f"reward {name!r} returned {values[place]} for list {slates[place[:2]].tolist()} ({len(bad)} of "
            f"{values.size} values are not finite); return finite numbers for every list, 0 where it is not defined"
        )
    if values.shape == per_list:
        return place_on_last(values, slates.shape[2])
    return values


def weighted_sum(rewards: Mapping[str, np.ndarray], goal: Goal) -> np.ndarray:
    """Weigh the rewards of a rollout by a goal.

    Args:
        rewards: unweighted arrays by name, each [B, G, K].
        goal: what is tuned for.

    Returns:
        [B, G, K] float32.

    Raises:
        InputError: the goal names a reward that the rollout doesn't carry.
    """
    missing = [name for name in goal.weights if name not in rewards]
    if missing:
        raise InputError(
            f"goal {goal} needs reward {missing[0]!r}, and the rollout carries {', '.join(rewards)}; "
            "start the generators with the same goal"
        )
    total = sum(np.float32(weight) * rewards[name] for name, weight in goal.weights.items())
    return np.asarray(total, dtype=np.float32)
