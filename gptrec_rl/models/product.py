"""Matrix products of a layer with what follows them, as fast as processors can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.nn import functional

from gptrec_rl.models.precision import has_bf16

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: Mapping[str, tuple[Activation, str, str]] = {
    "gelu": (functional.gelu, "gelu", "none"),
    "gelu_new": (partial(functional.gelu, approximate="tanh"), "gelu", "tanh"),
    "gelu_pytorch_tanh": (partial(functional.gelu, approximate="tanh"), "gelu", "tanh"),
    "relu": (functional.relu, "relu", ""),
    "none": (lambda rows: rows, "none", ""),
}
"""By the names of a GPT-2's configuration: the function, and oneDNN's name and variant of it."""


class Product:
    """Rows times a matrix plus a bias, and an activation: [N, in] -> [N, out].

    Where the matrix stays as it is (in inference mode) and the processor multiplies bf16, oneDNN lays it out as its
    units want it once, rather than in every product, which saves a third of the time; the activation is computed on the
    way out.

    Args:
        bias: [out].
        matrix: [in, out], in the precision of the product.
        activation: one of `ACTIVATIONS`.
    """

    def __init__(self, bias: torch.Tensor, matrix: torch.Tensor, activation: str = "none") -> None:
        self._bias, self._matrix = bias, matrix
        self._activation, self._name, self._variant = ACTIVATIONS[activation]
        self._packed: torch.Tensor | None = None
        if torch.is_inference_mode_enabled() and _can_pack(matrix):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(matrix.t().contiguous())

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        if self._packed is None:
            return self._activation(torch.addmm(self._bias, rows, self._matrix))
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self._bias, self._name, [], self._variant
        )
        return product


def _can_pack(matrix: torch.Tensor) -> bool:
    """Tell whether oneDNN takes the matrix; the operators are those behind `torch.compile`, and not documented."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    is_for_processor = matrix.device.type == "cpu" and matrix.dtype == torch.bfloat16 and has_bf16(matrix.device)
    return (
        is_for_processor
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    )
