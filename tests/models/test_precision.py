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
    assert precision.product_dtype(wanted, CPU) == expected


@pytest.mark.parametrize("in_hardware", [True, False])
def test_a_gpu_that_only_emulates_bf16_does_not_have_it(in_hardware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: in_hardware or including_emulation
    )
    assert precision.has_bf16(torch.device("cuda")) == in_hardware


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "n_warnings"), [("bf16", False, 1), ("bf16", True, 0), ("auto", False, 0)]
)
def test_bf16_without_the_hardware_is_warned_of_once(
    wanted: precision.Precision,
    has_bf16: bool,
    n_warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: has_bf16)
    precision._warn_of_slow_bf16.cache_clear()
    for _ in range(3):
        precision.product_dtype(wanted, CPU)
    assert [record.message.partition(" can take ")[0] for record in caplog.records] == [
        "precision bf16 on a cpu without bf16 units"
    ] * n_warnings
