"""Where bf16 is used."""

from __future__ import annotations

import pytest
import torch

from gptrec_rl.models import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "expected"),
    [("auto", True, torch.bfloat16), ("auto", False, torch.float32), ("bf16", False, torch.bfloat16),
     ("fp32", True, torch.float32)],
)  # fmt: skip
def test_auto_follows_the_hardware_and_the_others_are_obeyed(
    wanted: precision.Precision, has_bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: has_bf16)
    with precision.autocast(wanted, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == expected
