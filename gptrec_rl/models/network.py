"""What every trained network is to the code that trains, saves and asks it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Network(nn.Module, ABC):
    """A model made of torch modules, which turns into files and back.

    Attributes:
        n_items: I.
    """

    n_items: int

    @abstractmethod
    def to_files(self) -> dict[str, bytes]:
        """Return `config.json`, which names the kind of model under "recommender", and `model.safetensors`."""

    @classmethod
    @abstractmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read what `to_files` returned; in eval mode, on the processor.

        Raises:
            InputError: the files are not those of such a model.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def width(self) -> int:
        """D, how many numbers an embedding has; every network's first weights are embeddings."""
        return next(self.parameters()).shape[-1]


def require_weights(
    weights: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Refuse weights that aren't those of a network.

    Args:
        weights: by name.
        shapes: of the network's, by name.
        dtypes: of those that aren't float32.

    Raises:
        ValueError: names, shapes or types differ, or a weight is not finite; names the first three.
    """
    wrong = [
        name
        for name in sorted(shapes.keys() | weights.keys())
        if name not in shapes
        or name not in weights
        or tuple(weights[name].shape) != tuple(shapes[name])
        or weights[name].dtype != (dtypes or {}).get(name, torch.float32)
    ]
    if wrong:
        raise ValueError(f"missing, unknown or of another shape: {', '.join(wrong[:3])}")
    broken = [name for name in shapes if not weights[name].isfinite().all()]
    if broken:
        raise ValueError(f"not finite: {', '.join(broken[:3])}")
