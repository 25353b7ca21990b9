"""Figures 3 to 5 and the validator's path: what they show, where there is something to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.figures import draw_figures, trades
from gptrec_rl.reporting.tables import Row


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Keep each figure that is saved, by its file's name."""
    figures: dict[str, Figure] = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.update({Path(path).stem: figure}))
    return figures


def test_all_that_there_are_results_for_is_drawn(evidence: Evidence, tmp_path: Path) -> None:
    written = draw_figures(evidence, tmp_path / "figures")
    assert {path.name for path in written.values()} == {
        *("figure-3.png", "figure-4.png", "tuned-path.png", "tuned-seed1-path.png")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written.values())
    assert any("hypervolumes are counted from NDCG 0 and ILD@2 0" in title for title in written)


def test_nothing_is_drawn_of_nothing(make_evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    assert draw_figures(make_evidence("base", "student", "tuned", "mmr"), tmp_path) == {}


def test_figure_3_has_both_strategies_at_each_cutoff_and_the_gap(
    evidence: Evidence, drawn: dict[str, Figure], tmp_path: Path
) -> None:
    draw_figures(evidence, tmp_path)
    (panel,) = drawn["figure-3"].axes  # only the baseline has been asked both ways
    assert panel.get_title() == "Base"
    top_k, next_k = panel.lines
    assert list(top_k.get_ydata()) == [0.5, 0.5]
    assert list(next_k.get_ydata()) == [0.25, 0.25]
    assert "-50.0%" in {text.get_text() for text in panel.texts}


def test_figure_4_has_gptrec_what_was_reranked_and_the_curve_with_hypervolumes(
    evidence: Evidence, drawn: dict[str, Figure], tmp_path: Path
) -> None:
    draw_figures(evidence, tmp_path)
    figure = drawn["figure-4"]
    assert {text.get_text() for text in figure.axes[0].texts} == {"Base", "Student", "Tuned"}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    # GPTRec's front: (ILD 0.20, NDCG 0.4) and (0.42, 1/3): 0.2 * 0.4 + 0.22 / 3
    assert f"GPTRec, hypervolume {0.2 * 0.4 + 0.22 / 3:.4f}" in names
    # The curve's: (0.2, 0.5) and (0.45, 0.2)
    assert f"MMR, hypervolume {0.2 * 0.5 + 0.25 * 0.2:.4f}" in names
    assert "Pareto front" in names
    assert {"what was reranked"} < set(names)


def test_models_without_a_metric_are_left_out_and_a_figure_without_any_is_not_drawn(
    evidence: Evidence, drawn: dict[str, Figure], tmp_path: Path
) -> None:
    def without_ild(*row_ids: str) -> Evidence:
        undefined = {"ILD@2": np.full(60, np.nan)}
        lines = [
            replace(line, table=replace(line.table, per_user={**line.table.per_user, **undefined}))
            if line.table is not None and line.row_id in row_ids
            else line
            for line in evidence.lines
        ]
        return replace(evidence, lines=lines, curves=[])

    draw_figures(without_ild("student"), tmp_path)
    assert {text.get_text() for text in drawn["figure-4"].axes[0].texts} == {"Tuned"}
    names = [text.get_text() for text in drawn.pop("figure-4").legends[0].get_texts()]
    assert f"GPTRec, hypervolume {0.42 / 3:.4f}" in names
    assert "figure-4" not in {path.stem for path in draw_figures(without_ild("student", "tuned"), tmp_path).values()}
    assert "figure-4" not in drawn


def test_hypervolume_of_popularity_bias_counts_from_one() -> None:
    _, popularity = trades(2)
    rows = [Row("a", {"NDCG@2": 0.5, "nPCOUNT@2": 0.4}), Row("b", {"NDCG@2": 0.6, "nPCOUNT@2": 1.2}), Row("c", {})]
    assert popularity.hypervolume(rows) == pytest.approx(0.5 * 0.6)  # b is worse than the reference point
    assert popularity.is_goal("ndcg=1,pcount=3")
    assert popularity.is_goal("ndcg=1")
    assert not popularity.is_goal("ndcg=1,ild=1")


def test_long_names_are_wrapped_above_their_panel(evidence: Evidence, drawn: dict[str, Figure], tmp_path: Path) -> None:
    name = "GPTRec-Supervised (a teacher with a long name)"
    (base, *others) = evidence.lines
    renamed = replace(base, row=base.row.model_copy(update={"name": name}))
    draw_figures(replace(evidence, lines=[renamed, *others]), tmp_path)
    (panel,) = drawn["figure-3"].axes
    assert panel.get_title().split("\n") == ["GPTRec-Supervised (a teacher", "with a long name)"]
