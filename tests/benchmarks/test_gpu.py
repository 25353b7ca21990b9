"""The benchmark on a GPU, as far as it needs none."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from benchmarks.command import main
from benchmarks.gpu import Speed, table


def test_a_machine_without_a_gpu_is_told_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.json"
    result = CliRunner().invoke(main, ["gpu", "--out", str(out), "--section", str(tmp_path / "gpu.md")])
    assert (result.exit_code, result.output) == (
        1,
        "Error: PyTorch finds no GPU here; this benchmark needs one, and a CUDA build of PyTorch\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_rates_and_shares_are_of_the_median_call():
    speed = Speed("update", 128, [0.02, 0.01, 0.04], busy=0.005, n_kernels=508.0, n_answers=12.0)
    assert speed.median == pytest.approx(0.02)
    assert table([speed])[1] == ["update", "6,400", "20", "10 to 40", "5", "25%", "508", "12"]
