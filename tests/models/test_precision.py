"""Where bf16 is used."""

from __future__ import annotations

import pytest
import torch

from gptrec_rl.config import ModelConfig, TransformerConfig
from gptrec_rl.models import precision
from gptrec_rl.models.bert4rec import Bert4Rec
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.next_item import GPTRecShifting, SASRec

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


@pytest.mark.parametrize(("width", "expected"), [(64, torch.float32), (128, torch.bfloat16), (256, torch.bfloat16)])
def test_auto_leaves_narrow_models_in_fp32_where_bf16_would_be_slower(
    width: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert precision.product_dtype("auto", CPU, width) == expected
    assert precision.product_dtype("bf16", CPU, width) == torch.bfloat16


def test_each_kind_of_network_knows_its_width() -> None:
    sizes = TransformerConfig(n_layers=1, n_heads=2, width=8, history_length=4)
    policy = GPTRec.create(5, ModelConfig(**sizes.model_dump(), slate_length=2))
    scorers = [kind.create(5, sizes) for kind in (SASRec, GPTRecShifting, Bert4Rec)]
    assert [network.width for network in (policy, *scorers)] == [8, 8, 8, 8]


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
