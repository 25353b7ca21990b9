from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import suite
from benchmarks.command import DOCUMENT, PICTURE, RESULTS, _beside, main
from benchmarks.figures import Figure, read_results
from benchmarks.rows import Setting


def test_figures_put_elsewhere_leave_the_committed_document_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(setting: Setting) -> Sequence[Figure]:
        return [Figure.of("lists", [float(setting.rounds)], "times", "at least", 2)]

    monkeypatch.setattr(suite, "SUITE", {"lists": row})
    out, before = tmp_path / "other.json", DOCUMENT.read_text(encoding="utf-8")
    outcome = CliRunner().invoke(main, ["--rounds", "3", "--out", str(out)])
    assert outcome.exit_code == 0, outcome.output
    results = read_results(out)
    assert results is not None
    assert results.figures["lists"].value == 3
    assert "| lists | at least 2 times | 3 times |" in (tmp_path / "other.md").read_text(encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == before


def test_the_committed_figures_keep_their_document_however_their_path_is_written() -> None:
    assert _beside(Path(os.path.relpath(RESULTS)), DOCUMENT) == DOCUMENT
    assert _beside(RESULTS.with_name("other.json"), PICTURE) == RESULTS.with_name("other.png")
