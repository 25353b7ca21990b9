"""What a text calls a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptrec_rl.runs.models import ModelChoice


def test_a_folder_of_the_whole_name_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ModelChoice.parse("ndcg=1,ild=1") == ModelChoice("ndcg", "1,ild=1")
    (tmp_path / "ndcg=1,ild=1").mkdir()
    assert ModelChoice.parse("ndcg=1,ild=1") == ModelChoice("ndcg=1,ild=1", "ndcg=1,ild=1")
    assert ModelChoice.parse("mine=runs/a") == ModelChoice("mine", "runs/a")
