from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import command, suite
from benchmarks.command import DOCUMENT, LOAD, PICTURE, RESULTS, _beside, main
from benchmarks.figures import Figure, Results, read_results
from benchmarks.rows import Setting
from gptrec_rl.reporting.documents import machine_description


@pytest.fixture(autouse=True)
def one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(setting: Setting) -> Sequence[Figure]:
        return [Figure.of("lists", [float(setting.rounds)], "times", "at least", 2)]

    monkeypatch.setattr(suite, "SUITE", {"lists": row})


@pytest.mark.parametrize(("machine", "is_replaced"), [(machine_description(), True), ("another machine", False)])
def test_figures_of_another_machine_are_not_replaced_unasked(
    machine: str, is_replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, own, document = tmp_path / "bench.json", tmp_path / "runs/bench.json", tmp_path / "performance.md"
    committed.write_text(Results(machine, {}, {"batch": []}).json(), encoding="utf-8")
    for name, path in (("RESULTS", committed), ("OWN", own.parent), ("DOCUMENT", document)):
        monkeypatch.setattr(command, name, path)
    outcome = CliRunner().invoke(main, ["--rounds", "3"])
    assert outcome.exit_code == 0, outcome.output
    results, old = read_results(committed if is_replaced else own), read_results(committed)
    assert results is not None
    assert results.figures["lists"].value == 3
    assert (own.exists(), own.with_suffix(".md").exists(), document.exists()) == (
        not is_replaced, not is_replaced, is_replaced,
    )  # fmt: skip
    assert old is not None
    assert (old.machine, old.curves, bool(old.figures)) == (machine, {"batch": []}, is_replaced)


def test_figures_put_elsewhere_leave_the_committed_document_alone(tmp_path: Path) -> None:
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
    table = LOAD.with_suffix(".md")
    assert (_beside(LOAD, table), _beside(LOAD.with_name("other.json"), table)) == (table, table.with_name("other.md"))


@pytest.mark.parametrize("option", ["--data", "--student"])
def test_what_is_asked_for_and_is_not_there_is_refused(option: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, [option, str(tmp_path / "mistyped"), "--out", str(tmp_path / "bench.json")])
    assert outcome.exit_code == 2
    assert "mistyped" in outcome.output
    assert list(tmp_path.iterdir()) == []
