"""Matrix products of a layer, as fast as processors can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.nn import functional

from gptrec_rl.models.precision import has_bf16

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "none": lambda rows: rows,
}
"""By the names of a GPT-2's configuration. oneDNN could compute them on the way out, but takes longer for many rows."""


class Product:
    """Rows times a matrix plus a bias, and an activation: [N, in] -> [N, out].

    Where the matrix stays as it is (in inference mode), oneDNN lays it out as the processor's units want it once,
    rather than in every product, which saves up to a third of the time.

    Args:
        bias: [out]; None adds nothing.
        matrix: [in, out], in the precision of the product.
        activation: one of `ACTIVATIONS`.
    """

    def __init__(self, bias: torch.Tensor | None, matrix: torch.Tensor, activation: str = "none") -> None:
        self._bias = bias
        self._activation = ACTIVATIONS[activation]
        self._matrix, self._packed_linear = matrix.t(), None  # [out, in], as PyTorch has it
        if torch.is_inference_mode_enabled() and _can_pack(matrix):
            self._matrix = torch.ops.mkldnn._reorder_linear_weight(self._matrix.contiguous())
            self._packed_linear = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        if self._packed_linear is None:
            product = functional.linear(rows, self._matrix, self._bias)
        else:
            product = self._packed_linear(rows, self._matrix, self._bias, "none", [], "")
        return self._activation(product)


def _can_pack(matrix: torch.Tensor) -> bool:
    """Tell whether oneDNN takes the matrix; the operators are those behind `torch.compile`, and not documented."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    has_units = matrix.dtype == torch.float32 or (matrix.dtype == torch.bfloat16 and has_bf16(matrix.device))
    return (
        matrix.device.type == "cpu"
        and has_units
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    )
