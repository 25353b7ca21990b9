"""Table 3 in its formats: ours, published, difference, best and second best, stars; what was not run says so."""

from __future__ import annotations

import csv
import io
import re

import pytest

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.table import CSV_COLUMNS, paper_table


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if name in line)


def test_text_has_ours_with_marks_and_the_published_line_below(evidence: Evidence) -> None:
    text = paper_table(evidence, "text")
    lines = text.splitlines()
    assert re.split(r"  +", lines[0]) == ["Model", "Recall@1 ↑", "Recall@2 ↑", "NDCG@2 ↑", "ILD@2 ↑", "nPCOUNT@2 ↓"]
    # NDCG: base 0.5, student 0.4, tuned 1/3, weak 0.25; ILD: tuned 0.42, weak 0.3; nPCOUNT: base and student 0.5
    assert re.split(r"  +", line_of(text, "Base")) == ["Base", "0.5000¹", "0.5000¹", "0.5000¹", "0.2000", "0.5000¹"]
    weak = re.split(r"  +", line_of(text, "Weak"))
    assert weak[3:] == ["0.2500", "0.3000²*+", "1.0000*-"]
    below = lines[lines.index(line_of(text, "Weak")) + 1]
    assert below.split() == ["published", "0.5000", "(-50.0%)", "0.2500", "(+20.0%)"]
    assert re.split(r"  +", line_of(text, "Tuned"))[4:] == ["0.4200¹*+", "0.6000²*-"]


def test_a_row_that_was_not_run_says_so_beside_its_published_value(evidence: Evidence) -> None:
    text = paper_table(evidence, "text")
    assert line_of(text, "Absent").split() == ["Absent", "not", "run"]
    assert line_of(paper_table(evidence, "markdown"), "Absent").count("not run") == 5
    assert "not run<br>0.3000 |" in line_of(paper_table(evidence, "markdown"), "Absent")
    assert "not run" in line_of(paper_table(evidence, "latex"), "Absent")


def test_markdown_marks_best_second_best_and_stars(evidence: Evidence) -> None:
    text = paper_table(evidence, "markdown")
    assert {line.count("|") for line in text.splitlines()} == {8}
    assert "| Baselines | Base | **0.5000** |" in text
    assert "<ins>0.3000</ins>\\*+<br>0.2500 (+20.0%)" in line_of(text, "Weak")
    assert "**0.4200**\\*+" in line_of(text, "Tuned")


def test_latex_has_one_cell_a_column_and_escapes(evidence: Evidence) -> None:
    text = paper_table(evidence, "latex")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {6}
    assert r"Weak \& small" in text
    assert r"\underline{0.3000}$^{*+}$" in text
    assert r"\textbf{0.5000}" in text
    assert r"0.5000 (-50.0\%)" in text
    assert r"NDCG@2 $\uparrow$" in text


def test_latex_names_its_budget_and_baseline_in_a_comment(evidence: Evidence) -> None:
    assert paper_table(evidence, "latex").startswith("% By hand, budget cpu; stars against Base\n\\begin{tabular}")
    evidence.study.result_file("base", 0).unlink()
    without = paper_table(Evidence.of(evidence.study), "latex")
    assert without.startswith("% By hand, budget cpu; no stars, without a baseline\n")


def test_csv_has_a_line_a_row_and_metric(evidence: Evidence) -> None:
    rows = list(csv.DictReader(io.StringIO(paper_table(evidence, "csv"))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 5 * 5
    weak = next(row for row in rows if row["model"].startswith("Weak") and row["metric"] == "ILD@2")
    assert float(weak["difference"]) == pytest.approx(0.05)
    assert float(weak["against_baseline"]) == pytest.approx(0.1)
    assert float(weak["low"]) <= 0.1 <= float(weak["high"]) + 1e-6
    assert weak["verdict"] == "better"
    absent = next(row for row in rows if row["model"] == "Absent" and row["metric"] == "NDCG@2")
    assert (absent["state"], absent["value"], absent["published"], absent["p"]) == ("not run", "", "0.3", "")
    assert weak["state"] == "run"


def test_without_the_baseline_there_are_no_stars(make_evidence) -> None:
    assert "*" not in paper_table(make_evidence("base"), "text")
