"""Products by oneDNN against PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from gptrec_rl.models import product
from gptrec_rl.models.precision import has_bf16
from gptrec_rl.models.product import ACTIVATIONS, Product


def draw(dtype: torch.dtype, n_rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(n_rows)
    bias, matrix, rows = (torch.randn(*shape, generator=random) for shape in ((48,), (32, 48), (n_rows, 32)))
    return bias.to(dtype), matrix.to(dtype), rows.to(dtype)


@pytest.fixture
def without_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "_can_pack", lambda matrix: False)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_rows", [1, 7, 256])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_formula(dtype: torch.dtype, inference: bool, n_rows: int, activation: str) -> None:
    bias, matrix, rows = draw(dtype, n_rows)
    with torch.inference_mode(inference):
        result = Product(bias, matrix, activation)(rows)
    expected = ACTIVATIONS[activation](bias.double() + rows.double() @ matrix.double())
    assert result.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.01  # bf16 has 8 bits
    torch.testing.assert_close(result.double(), expected, atol=2 * tolerance, rtol=tolerance)


def test_part_of_a_matrix_is_multiplied_alike() -> None:
    bias, matrix, rows = draw(torch.bfloat16, 20)
    with torch.inference_mode():
        whole, part = Product(bias, matrix)(rows), Product(bias[16:], matrix[:, 16:])(rows)
    assert torch.equal(whole[:, 16:], part)


def test_gradients_flow_outside_inference_mode() -> None:
    bias, matrix, rows = draw(torch.bfloat16, 20)
    matrix.requires_grad_()
    Product(bias, matrix, "gelu")(rows).float().sum().backward()
    assert matrix.grad is not None
    assert matrix.grad.abs().sum() > 0


@pytest.mark.usefixtures("without_packing")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_build_without_onednn_multiplies_too(activation: str) -> None:
    bias, matrix, rows = draw(torch.bfloat16, 20)
    with torch.inference_mode():
        result = Product(bias, matrix, activation)(rows)
    assert torch.equal(result, ACTIVATIONS[activation](torch.addmm(bias, rows, matrix)))


@pytest.mark.parametrize("inference", [False, True])
def test_there_need_not_be_a_bias(inference: bool) -> None:
    bias, matrix, rows = draw(torch.float32, 20)
    with torch.inference_mode(inference):
        torch.testing.assert_close(Product(None, matrix)(rows), Product(bias.zero_(), matrix)(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_are_packed_where_nothing_changes_them(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not has_bf16(torch.device("cpu")):
        pytest.skip("the processor has no bf16 units")
    bias, matrix, rows = draw(dtype, 20)
    with torch.inference_mode():
        packed = Product(bias, matrix)
        matrix.zero_()
        assert packed(rows).abs().sum() > 0  # it has a copy of its own
    follows = Product(bias.zero_(), matrix)
    assert follows(rows).abs().sum() == 0
