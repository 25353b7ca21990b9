"""Figures: verdicts, the file they are kept in, and the table that compares them with the last ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.figures import (
    Figure,
    Results,
    comparison,
    last_committed,
    number,
    read_results,
    table,
    unmeasured,
)
from gptrec_rl.reporting.grids import Grid

FAST = Figure.of("fast", [210.0, 190.0, 205.0], "times", "at least", 200, "note")
SLOW = Figure.of("slow", [6.0], "%", "at most", 5)
ABSENT = unmeasured("absent", "s", "at most", 60, "no data")


@pytest.mark.parametrize(
    ("sense", "bound", "verdict"),
    [("at least", 5, "yes"), ("at least", 6, "no"), ("at most", 5, "yes"), ("at most", 4, "no")],
)
def test_a_bound_is_met_by_what_equals_it(sense, bound, verdict):
    assert Figure.of("work", [5.0], "", sense, bound).verdict == verdict
    assert Figure.of("work", [5.0], "", sense, bound, is_binding=False).verdict == "report only"


def test_the_table_shows_bound_median_spread_and_the_last_figure():
    lines = table([FAST, SLOW, ABSENT], {"fast": Figure.of("fast", [123.4], "times", "at least", 200)})
    assert lines[1] == ["fast", "at least 200 times", "205 times", "190 to 210", "yes", "123", "note"]
    assert lines[2][4:6] == ["no", "-"]
    assert lines[3][2:] == ["- s", "-", "-", "-", "not measured: no data"]
    assert Grid.of(lines).text().splitlines()[2].startswith("fast    at least 200 times")
    assert (
        Grid.of(lines).markdown().splitlines()[2]
        == "| fast | at least 200 times | 205 times | 190 to 210 | yes | 123 | note |"
    )


def test_figures_of_another_machine_are_said_to_be_so():
    last = Results("one machine", {}, {})
    assert comparison(None, "one machine") == "No figures have been committed before."
    assert comparison(last, "one machine") == "The last committed figures are of this machine."
    assert "of another machine, one machine;" in comparison(last, "another")


def test_what_a_program_said_stays_in_its_cell():
    assert Grid.of([["work"], ["failed: a | b\n  c"]]).markdown().splitlines() == [
        "| work |",
        "| --- |",
        "| failed: a \\| b c |",
    ]


def test_numbers_have_three_digits():
    assert [number(value) for value in (0.012345, 1.2345, 12345.6, None)] == ["0.0123", "1.23", "12,346", "-"]


def test_results_survive_their_file(tmp_path: Path):
    results = Results("a machine", {"fast": FAST, "absent": ABSENT}, {"batch": [{"x": 1, "generation": 2.0}]})
    path = tmp_path / "bench.json"
    assert read_results(path) is None
    path.write_text(results.json(), encoding="utf-8")
    assert read_results(path) == results


def test_the_last_committed_results_are_those_of_the_last_commit(tmp_path: Path):
    path = tmp_path / "bench.json"
    assert last_committed(path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    path.write_text(Results("old", {"fast": FAST}, {}).json(), encoding="utf-8")
    for command in (["init", "-q"], ["add", "bench.json"], ["commit", "-q", "-m", "results"]):
        subprocess.run([*git, *command], check=True)
    path.write_text(Results("new", {}, {}).json(), encoding="utf-8")
    last = last_committed(path)
    assert last is not None
    assert (last.machine, last.figures) == ("old", {"fast": FAST})
