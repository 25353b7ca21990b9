"""MF-BPR (Rendle et al., 2009): matrix factorisation, what `learning.bpr` trains; it ignores the order of histories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn import functional

from gptrec_rl.data import Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.models.network import CONFIG_FILE, WEIGHTS_FILE, Network, require_weights
from gptrec_rl.recommender import HistoriesLike, Slates, candidates, top_k


class MatrixFactorization(Network):
    """Scores item i for user u by p_u . q_i + b_i: a scoring recommender for histories, not for users.

    A history has the factors of the training user whose training history is its beginning, and half of it or more:
    what somebody does later leaves their factors as they were learned. Other histories are folded in: the mean factors
    of their items, less the mean over all training interactions, which is where a first step of BPR leads. A new user
    has no factors, so b_i decides.

    Args:
        user_factors: p_u and a 1, [U, F + 1] float32.
        item_factors: q_i and b_i, [I, F + 1] float32.
        user_keys: hashes of the training histories, [U] int64; the histories themselves are not kept.
        frequencies: share of the training interactions that each item has, [I] float32.
    """

    KIND = "bpr"

    def __init__(
        self,
        user_factors: torch.Tensor,
        item_factors: torch.Tensor,
        user_keys: torch.Tensor,
        frequencies: torch.Tensor,
    ) -> None:
        super().__init__()
        self.user_factors = nn.Parameter(user_factors, requires_grad=False)
        self.item_factors = nn.Parameter(item_factors, requires_grad=False)
        self.user_keys = nn.Buffer(user_keys)
        self.frequencies = nn.Buffer(frequencies)
        self.n_items = len(item_factors)
        self._user_of = {key: user for user, key in enumerate(user_keys.tolist())}

    @classmethod
    def create(cls, split: Split, n_factors: int) -> MatrixFactorization:
        """Make an untrained model of a split's users and items from torch's current random state, small and uniform."""
        n_users, n_items = len(split.training), split.catalogue.n_items
        user_factors, item_factors = ((torch.rand(n, n_factors + 1) - 0.5) / n_factors for n in (n_users, n_items))
        user_factors[:, -1] = 1.0
        user_keys = [_keys(history, len(history))[-1] for history in split.training]
        frequencies = torch.from_numpy(split.frequencies.astype(np.float32))
        return cls(user_factors, item_factors, torch.tensor(user_keys), frequencies)

    @torch.inference_mode()
    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return p_u . q_i + b_i for the user of each history, [B, I] float32."""
        histories = Histories.of(histories, self.n_items)
        users = torch.tensor([self._user(history) for history in histories], dtype=torch.int64, device=self.device)
        is_known = (users >= 0)[:, None]
        factors = torch.where(is_known, self.user_factors[users], self._folded_in(histories))  # [B, F + 1]
        return (factors @ self.item_factors.T).cpu().numpy()

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K best scored items that are not in the history; see `Recommender`."""
        histories = Histories.of(histories, self.n_items)
        return top_k(self.score(histories), candidates(histories, self.n_items, k, allowed), k)

    def _user(self, history: np.ndarray) -> int:
        """Return the row of the user with the longest training history that this one begins with; -1 for a stranger."""
        users = [self._user_of.get(key, -1) for key in _keys(history, max(1, -(-len(history) // 2)))]
        return next((user for user in reversed(users) if user >= 0), -1)

    def _folded_in(self, histories: Histories) -> torch.Tensor:
        """Return factors made from items alone, [B, F + 1]."""
        items = torch.from_numpy(histories.values.astype(np.int64) - 1).to(self.device)
        offsets = torch.from_numpy(histories.offsets[:-1]).to(self.device)
        means = functional.embedding_bag(items, self.item_factors, offsets, mode="mean")  # [B, F + 1]
        has_items = torch.from_numpy(histories.lengths > 0).to(self.device)
        factors = (means - self.frequencies @ self.item_factors) * has_items[:, None]
        factors[:, -1] = 1.0
        return factors

    def to_files(self) -> dict[str, bytes]:
        """Return config.json and model.safetensors."""
        n_users, width = self.user_factors.shape
        config = {"recommender": self.KIND, "n_users": n_users, "n_items": self.n_items, "n_factors": width - 1}
        return {
            CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True).encode(),
            WEIGHTS_FILE: save_tensors({name: tensor.cpu() for name, tensor in self.state_dict().items()}),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> MatrixFactorization:
        """Read what `to_files` wrote.

        Raises:
            InputError: the files are not those of such a model.
        """
        try:
            config, tensors = json.loads(files[CONFIG_FILE]), load_tensors(files[WEIGHTS_FILE])
            _require_shapes(config, tensors)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise InputError(f"these are not the files of an MF-BPR ({error}); train or fetch it again") from None
        return cls(**tensors).eval()


def _keys(history: np.ndarray, shortest: int) -> list[int]:
    """Hash the beginnings of a history, from the shortest length to the whole: 64 bits each."""
    data = history.astype("<i4").tobytes()
    state = blake2b(data[: 4 * shortest], digest_size=8)
    keys = [state.digest()]
    for start in range(4 * shortest, len(data), 4):
        state.update(data[start : start + 4])
        keys.append(state.digest())
    return [int.from_bytes(key, "little", signed=True) for key in keys]


def _require_shapes(config: Mapping[str, int | str], tensors: Mapping[str, torch.Tensor]) -> None:
    if config["recommender"] != MatrixFactorization.KIND:
        raise ValueError(f"they are of a {config['recommender']}")
    n_users, n_items, width = int(config["n_users"]), int(config["n_items"]), int(config["n_factors"]) + 1
    shapes = {
        "user_factors": (n_users, width),
        "item_factors": (n_items, width),
        "user_keys": (n_users,),
        "frequencies": (n_items,),
    }
    require_weights(tensors, shapes, {"user_keys": torch.int64})
