"""The rewards that a run's goal is made of, with the trained model that one of them may ask."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.goals import build_rewards, parse_goal
from gptrec_rl.rewards import Reward
from gptrec_rl.store.trained_models import load_scorer


def rewards_of(config: TuneConfig, split: Split) -> dict[str, Reward]:
    """Return the function behind each name of a run's goal; errors as in `build_rewards` and `load_model`."""
    folder = config.reward_model
    open_scorer = None if folder is None else partial(load_scorer, Path(folder), split.catalogue)
    return build_rewards(parse_goal(config.goal), split, open_scorer)
