"""Figures 3 to 5 of the paper, and the validator's path of each tuning run, from a study's evidence."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptrec_rl.experiments.evidence import Evidence, Line
from gptrec_rl.experiments.goal_values import measured_goal
from gptrec_rl.experiments.next_k_costs import asked_both_ways
from gptrec_rl.experiments.results import Result
from gptrec_rl.goals import parse_goal
from gptrec_rl.metrics import metric, ndcg_of_ranks
from gptrec_rl.reporting.figures import (
    COLOURS,
    Sweep,
    hypervolume,
    new_figure,
    save,
    trade_off,
)
from gptrec_rl.reporting.tables import Row
from gptrec_rl.rerank import RERANKERS
from gptrec_rl.telemetry.pictures import validation_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRATEGIES = {"top-k": "Top-K", "next-k": "Next-K"}


@dataclass(frozen=True)
class Trade:
    """What is traded against accuracy in one of the figures.

    Attributes:
        number: of the figure.
        meaning: in words.
        reward: of the goals whose models are shown.
        against: what the rerankers that are shown weigh scores against.
        metric: on the axis across.
        reference: value of the metric from which the hypervolume is counted; NDCG is counted from 0.
        accuracy: the metric upwards.
    """

    number: int
    meaning: str
    reward: str
    against: str
    metric: str
    reference: float
    accuracy: str

    def is_goal(self, goal: str) -> bool:
        """Tell whether a goal is for accuracy and this reward alone."""
        return set(parse_goal(measured_goal(goal)).weights) <= {"ndcg", self.reward}

    def hypervolume(self, rows: Sequence[Row]) -> float:
        """Return the area that rows cover between the reference point and their front."""
        sign = 1.0 if metric(self.metric).higher_is_better else -1.0
        defined = [row.values for row in rows if self.metric in row.values]
        return hypervolume(
            [sign * (values[self.metric] - self.reference) for values in defined],
            [values[self.accuracy] for values in defined],
        )


def trades(k: int) -> tuple[Trade, Trade]:
    """Return what Figures 4 and 5 show, for lists of k items."""
    return (
        Trade(4, "diversity", "ild", "genres", f"ILD@{k}", 0.0, f"NDCG@{k}"),
        Trade(5, "popularity bias", "pcount", "popularity", f"nPCOUNT@{k}", 1.0, f"NDCG@{k}"),
    )


def draw_figures(evidence: Evidence, folder: Path) -> dict[str, Path]:
    """Draw all figures that there are results for, as PNGs; return them by title."""
    dataset = evidence.study.experiments.dataset
    where = f"{dataset.title}, budget {evidence.study.budget}"
    figures: dict[str, Path] = {}
    both = asked_both_ways(evidence)
    if both:
        figures["Figure 3: Top-K and Next-K from one checkpoint"] = folder / "figure-3.png"
        _strategies(both, folder / "figure-3.png", where)
    for trade in trades(dataset.k):
        path = folder / f"figure-{trade.number}.png"
        title = f"Figure {trade.number}: accuracy and {trade.meaning}"
        if _trade_off(evidence, trade, path, where):
            counted = f"hypervolumes are counted from NDCG 0 and {trade.metric} {trade.reference:g}"
            figures[f"{title}; {counted}"] = path
    for line in evidence.run:
        for result in line.results:
            if result.validations:
                path = folder / f"{evidence.study.result_file(line.row_id, result.seed).stem}-path.png"
                figures[f"The validator's path: {line.row.name}, seed {result.seed}"] = path
                _path(line, result, path)
    return figures


def _strategies(lines: Sequence[Line], path: Path, title: str) -> None:
    """Draw Figure 3: NDCG@K at each cutoff K by both strategies, a panel a model, and the gap at the largest K."""
    figure, panels = new_figure(len(lines), width=3.6, height=3.2, per_row=4)
    for panel, line in zip(panels, lines, strict=True):
        tables = line.made[0].tables
        cutoffs = range(1, line.results[0].k + 1)
        curves = {each: [float(ndcg_of_ranks(tables[each].ranks, k).mean()) for k in cutoffs] for each in STRATEGIES}
        for (strategy, name), colour, marker in zip(STRATEGIES.items(), COLOURS, "os", strict=False):
            panel.plot(cutoffs, curves[strategy], color=colour, marker=marker, markersize=3, label=name)
        _draw_gap(panel, cutoffs[-1], curves["top-k"][-1], curves["next-k"][-1])
        panel.set_title(textwrap.fill(line.row.name, 32), fontsize=10)
        panel.set_xlabel("cutoff K")
        panel.set_ylim(bottom=0)
        panel.locator_params(axis="x", integer=True)
    panels[0].set_ylabel("NDCG@K")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title, fontweight="bold")
    save(figure, path)


def _draw_gap(panel: Axes, k: int, top_k: float, next_k: float) -> None:
    """Draw an arrow from Top-K to Next-K, with the change in percent."""
    arrow = {"arrowstyle": "->", "color": COLOURS[1], "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", (k, next_k), (k, top_k), arrowprops=arrow)
    if top_k > 0:
        lower = (k, min(top_k, next_k))
        panel.annotate(
            f"{next_k / top_k - 1:+.1%}",
            lower,
            (0, -9),
            textcoords="offset points",
            ha="right",
            va="top",
            color=COLOURS[1],
        )


def _trade_off(evidence: Evidence, trade: Trade, path: Path, title: str) -> bool:
    """Draw Figure 4 or 5: GPTRec's points and the rerankers' curves; return whether there was anything to draw."""
    drawn = [method for method, reranker in RERANKERS.items() if reranker.against == trade.against]
    curves = [curve for curve in evidence.curves if curve.points and curve.rerank.method in drawn]
    tuned = [line for line in evidence.run if line.row.tune is not None and trade.is_goal(line.row.tune.goal)]
    if not curves and not tuned:
        return False
    ours = [line for line in evidence.run if line.row.pretrain is not None or line in tuned]
    bases = [line for line in evidence.run if line.row_id in {curve.rerank.base for curve in curves}]
    points = [_row(line, "") for line in ours]
    label = f"GPTRec, hypervolume {trade.hypervolume(points):.4f}" if points else ""
    rows = [Row(row.name, row.values, row.errors, label) for row in points]
    rows += [_row(line, "what was reranked") for line in bases]
    sweeps = []
    for curve in curves:
        swept = [Row("", point.means, point.standard_errors) for point in curve.points]
        sweeps.append(Sweep(f"{curve.row.name}, hypervolume {trade.hypervolume(swept):.4f}", swept))
    if not any(trade.metric in row.values for row in [*rows, *(row for sweep in sweeps for row in sweep.rows)]):
        return False  # data without genres have no diversity
    trade_off(rows, path, across=(trade.metric,), up=trade.accuracy, title=title, sweeps=sweeps)
    return True


def _row(line: Line, group: str) -> Row:
    assert line.table is not None
    name = line.row.name.removeprefix("GPTRec-").removeprefix("Reinforcement-")
    values = {name: value for name, value in line.table.summary().items() if math.isfinite(value)}
    return Row(name, values, line.table.standard_errors(), group)


def _path(line: Line, result: Result, path: Path) -> None:
    """Draw what the validator saw of a tuning run."""
    tune = result.configuration.tune
    assert tune is not None
    has_genres = f"ILD@{result.k}" in result.validations[0].values
    traded = "ILD" if has_genres and "pcount" not in tune.goal else "nPCOUNT"
    shown = (f"NDCG@{result.k}", f"{traded}@{result.k}")
    validation_path(result.validations, path, shown, title=f"{line.row.name}: {tune.goal}")
