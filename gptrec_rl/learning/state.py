"""Optimiser moments and random states as plain tensors and JSON, so that runs resume without pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from gptrec_rl.errors import InputError


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Tell of a state that can't be resumed within the context, though its files are whole, as an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, OverflowError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(
            f"the learner state {name} can't be resumed ({error!r}); use the version and settings that saved it, or "
            "start a new run from this one with --student"
        ) from None


def is_finite(network: nn.Module) -> bool:
    """Return whether all weights are finite, and none so large that the next loss won't be."""
    return all(bool(weights.detach().square().sum().isfinite()) for weights in network.parameters())


def tensors_to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Serialise named tensors with safetensors; tensors that share memory are written twice."""
    return bytes(save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def tensors_from_bytes(data: bytes) -> dict[str, torch.Tensor]:
    """Read what `tensors_to_bytes` wrote."""
    return dict(load_tensors(data))


def optimiser_to_bytes(optimiser: torch.optim.Optimizer) -> bytes:
    """Serialise an optimiser's moments and step counts; hyperparameters come from the configuration."""
    state = optimiser.state_dict()["state"]
    return tensors_to_bytes({f"{place}.{key}": value for place, entry in state.items() for key, value in entry.items()})


def optimiser_from_bytes(optimiser: torch.optim.Optimizer, data: bytes) -> None:
    """Restore what `optimiser_to_bytes` wrote into an Adam or AdamW over the same parameters.

    Raises:
        ValueError: a parameter's moments are not of its shape: the fused step would go beyond their end.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors_from_bytes(data).items():
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = tensor
    for index, moments in state.items():
        of_parameter = {"step": torch.Size(), **dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[index].shape)}
        if {key: tensor.shape for key, tensor in moments.items()} != of_parameter:
            raise ValueError(f"the moments of parameter {index} are not of its shape")
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def numpy_rng_to_json(rng: np.random.Generator) -> str:
    """Serialise a numpy generator (PCG64: its state is plain integers)."""
    return json.dumps(rng.bit_generator.state)


def numpy_rng_from_json(text: str) -> np.random.Generator:
    """Restore what `numpy_rng_to_json` wrote."""
    bit_generator = np.random.PCG64()
    bit_generator.state = json.loads(text)
    return np.random.Generator(bit_generator)
