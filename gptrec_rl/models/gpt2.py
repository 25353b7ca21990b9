"""GPT-2's weights under the names of Hugging Face's GPT-2, for `backbone` to run.

Importing Hugging Face's own model takes two seconds and 130 MB, which processes that only compute can do without. Its
files, its initial weights and its configuration are the ones used here, and it is what tests compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import nn

from gptrec_rl.models.network import require_weights

Share = Field(0.1, ge=0, lt=1)


class Gpt2Config(BaseModel):
    """What of a `config.json` matters here; the rest is kept as it is. Names and defaults are Hugging Face's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    vocab_size: int = Field(ge=3)
    n_positions: PositiveInt
    n_embd: PositiveInt
    n_layer: PositiveInt
    n_head: PositiveInt
    history_length: NonNegativeInt
    """n; not one of Hugging Face's, nor is the next."""
    recommender: str = "gptrec"
    """Its kind (`gptrec_rl.kinds`); each class knows its own."""
    activation_function: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
    n_inner: PositiveInt | None = None
    """Width of the feed-forward network; None: four times that of the model."""
    layer_norm_epsilon: float = Field(1e-5, gt=0, allow_inf_nan=False)
    embd_pdrop: float = Share
    attn_pdrop: float = Share
    resid_pdrop: float = Share
    # Variants of GPT-2 that `backbone` doesn't run.
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: Literal[True] = True

    @model_validator(mode="after")
    def _sizes_fit(self) -> Gpt2Config:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} can't be shared by {self.n_head} heads")
        if self.n_positions < self.history_length + 1:
            raise ValueError(f"{self.n_positions} positions are too few for {self.history_length} items and a marker")
        return self


class Gpt2(nn.Module):
    """The weights of a `GPT2Model` as parameters of the same names: `wte.weight`, `h.0.ln_1.weight`, ...

    Args:
        config: sizes.
        weights: float32 by name; matrices of the blocks are [in, out].

    Raises:
        ValueError: names, shapes or types are not those of a GPT-2 of this size, or a weight is not finite.
    """

    def __init__(self, config: Gpt2Config, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.config = config
        if len(weights) != 12 * config.n_layer + 4:
            raise ValueError(f"{len(weights)} weights, and {config.n_layer} layers have {12 * config.n_layer + 4}")
        shapes = weight_shapes(config)
        require_weights(weights, shapes)
        for name in shapes:
            _hold(self, name, weights[name])


def weight_shapes(config: Gpt2Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a `GPT2Model`, in its order."""
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.n_positions, width),
    }
    for layer in range(config.n_layer):
        for name, shape in (
            ("ln_1", (width,)),
            ("attn.c_attn", (width, 3 * width)),
            ("attn.c_proj", (width, width)),
            ("ln_2", (width,)),
            ("mlp.c_fc", (width, inner)),
            ("mlp.c_proj", (inner, width)),
        ):
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[-1:]
    return {**shapes, "ln_f.weight": (width,), "ln_f.bias": (width,)}


def _hold(module: nn.Module, name: str, weights: torch.Tensor) -> None:
    """Make weights a parameter of a module, by a dotted name."""
    first, _, rest = name.partition(".")
    if not rest:
        module.register_parameter(first, nn.Parameter(weights))
        return
    if first not in module._modules:
        module.add_module(first, nn.Module())
    _hold(module.get_submodule(first), rest, weights)
