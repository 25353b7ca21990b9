"""What the Learner learns from: lists that a policy has sampled, with their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gptrec_rl.data import Histories

MAX_NAME_LENGTH = 128
LOG_PROB_TOLERANCE = 1e-4
DTYPES = {"values": "<i4", "offsets": "<i8", "ground_truth": "<i8", "slates": "<i4", "log_probs": "<f4"}
REWARD_DTYPE = "<f4"


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """G sampled lists for each of B histories.

    A rollout that exists is consistent: construction checks shapes, types and ranges.

    Attributes:
        temperature: sampling temperature, > 0.
        histories: B whole, untruncated histories.
        ground_truth: the item that followed each history, [B] int64.
        slates: [B, G, K] int32, item numbers.
        log_probs: log-probability of each item under the masked behaviour distribution, [B, G, K] float32, <= 0.
        rewards: one unweighted [B, G, K] float32 a metric.

    Raises:
        ValueError: names the field and what is wrong with it.
    """

    temperature: float
    histories: Histories
    ground_truth: np.ndarray
    slates: np.ndarray
    log_probs: np.ndarray
    rewards: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        values, offsets = self.histories.values, self.histories.offsets
        arrays = {
            "values": values,
            "offsets": offsets,
            "ground_truth": self.ground_truth,
            "slates": self.slates,
            "log_probs": self.log_probs,
        }
        for name, array in arrays.items():
            _require(array.dtype == DTYPES[name], f"{name} has dtype {array.dtype}, not {np.dtype(DTYPES[name])}")
        is_factor = type(self.temperature) is float and 0 < self.temperature < np.inf
        _require(is_factor, f"temperature is {self.temperature!r}; lists are sampled, so it is a number above 0")
        _require(self.slates.ndim == 3, f"slates has the shape {self.slates.shape}, not histories x lists x items")
        _require(self.slates.size > 0, f"slates of the shape {self.slates.shape} are none; a batch has one or more")
        n_histories = len(self.slates)
        _require(self.log_probs.shape == self.slates.shape, f"log_probs has the shape {self.log_probs.shape}")
        _require(self.ground_truth.shape == (n_histories,), f"ground_truth has the shape {self.ground_truth.shape}")
        _require(values.ndim == 1 and offsets.shape == (n_histories + 1,), f"offsets has the shape {offsets.shape}")
        _require(
            offsets[0] == 0 and offsets[-1] == len(values) and (offsets[:-1] <= offsets[1:]).all(),
            "offsets don't rise from 0 to the number of values",
        )
        for name in ("values", "ground_truth", "slates"):
            _require((arrays[name] >= 1).all(), f"{name} has an item number below 1")
        _require(np.isfinite(self.log_probs).all(), "log_probs has a value that is not finite")
        _require((self.log_probs <= LOG_PROB_TOLERANCE).all(), "log_probs has a value above 0")
        for name, reward in self.rewards.items():
            is_name = isinstance(name, str) and len(name) <= MAX_NAME_LENGTH
            _require(is_name, f"reward name {name!r:.40} is not a short text")
            _require(reward.dtype == REWARD_DTYPE, f"reward {name} has dtype {reward.dtype}, not float32")
            _require(reward.shape == self.slates.shape, f"reward {name} has the shape {reward.shape}, not the lists'")
            _require(np.isfinite(reward).all(), f"reward {name} has a value that is not finite")


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise ValueError(message)
