"""Pictures of a trade-off between metrics (Figures 4 and 5)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptrec_rl.metrics import metric
from gptrec_rl.reporting.labels import place_labels
from gptrec_rl.reporting.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANINGS = {
    "Recall": "more accurate",
    "NDCG": "more accurate",
    "ILD": "more diverse",
    "PCOUNT": "less popularity bias",
    "nPCOUNT": "less popularity bias",
}
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5fb0", "#c98a00", "#555555", "#0f8b8d", "#8b4a2b")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
FRONT = "#9aa5b1"
FRONT_LINE: Any = {"linestyle": "--", "linewidth": 1.2}
FRONT_BEHIND_SWEEPS: Any = {"linewidth": 7, "alpha": 0.4, "solid_capstyle": "round"}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "axes.axisbelow": True,
    "axes.edgecolor": "#7b8794",
}


@dataclass(frozen=True)
class Sweep:
    """One method with many settings, which a line joins in their order.

    Attributes:
        name: in the legend.
        rows: one a setting.
    """

    name: str
    rows: Sequence[Row]


def trade_off(
    rows: Sequence[Row],
    path: Path,
    across: Sequence[str] = ("ILD@10",),
    up: str = "NDCG@10",
    title: str = "",
    sweeps: Sequence[Sweep] = (),
) -> None:
    """Draw models in the plane of two metrics, one panel for each metric `across`, as a PNG.

    Bars are standard errors, the dashed line joins what nothing else beats in both metrics (the Pareto front), and axes
    run so that better is always up and to the right. Rows without a panel's metric are left out of it.
    """
    figure, panels = new_figure(len(across), width=5.6 if not sweeps else 8.4, height=4.6 if not sweeps else 6.4)
    groups = list(dict.fromkeys(row.group for row in rows))
    to_label = []
    for panel, name in zip(panels, across, strict=True):
        shown, swept = _defined(rows, name, up), [_defined(sweep.rows, name, up) for sweep in sweeps]
        everything = [*shown, *(row for defined in swept for row in defined)]
        front = _draw_front(panel, everything, name, up, FRONT_BEHIND_SWEEPS if sweeps else FRONT_LINE)
        for place, (sweep, defined) in enumerate(zip(sweeps, swept, strict=True)):
            _draw_sweep(panel, sweep.name, defined, place + len(groups), name, up)
        _draw_points(panel, shown, groups, name, up)
        name_axes(panel, name, up)
        avoid = front + _bars(everything, name, up)
        for defined in swept:
            avoid += _along(_points(defined, name, up))
        to_label.append((panel, shown, _points(shown, name, up), avoid))
    figure.suptitle(title, fontweight="bold")
    handles, names = panels[0].get_legend_handles_labels()
    columns: Any = {"ncols": 2, "fontsize": 7.2} if sweeps else {"ncols": 3 * len(across)}
    figure.legend(handles, names, loc="outside lower center", frameon=False, **columns)
    figure.draw_without_rendering()  # settles the layout, which labels are placed in
    for panel, shown, points, avoid in to_label:
        colours = [COLOURS[groups.index(row.group) % len(COLOURS)] for row in shown]
        place_labels(panel, [row.name for row in shown], points, colours, avoid)
    save(figure, path)


def pareto_front(xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """Return the places of the points that no other beats or equals in both coordinates (larger is better), by x."""
    front: list[int] = []
    for place in sorted(range(len(xs)), key=lambda i: (-xs[i], -ys[i])):
        if not front or ys[place] > ys[front[-1]]:
            front.append(place)
    return front[::-1]


def hypervolume(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the area between the origin and the front of some points: what at least one of them beats or equals.

    Args:
        xs: larger is better, counted from the reference point; what is not above it covers nothing.
        ys: likewise.

    Example:
        The point (1, 3) covers 3; (2, 1) adds one more; (1, 1) adds nothing.

        >>> hypervolume([1, 2, 1], [3, 1, 1])
        4.0
    """
    area = left = 0.0
    for place in pareto_front(xs, ys):
        x, y = max(xs[place], 0.0), max(ys[place], 0.0)
        area += max(x - left, 0.0) * y
        left = max(x, left)
    return area


def drawn(what: str, draw: Callable[[], object]) -> bool:
    """Draw, and tell whether it could be done; a picture that can't be drawn is said to be so, and loses nothing else.

    Args:
        what: of the picture, in words.
        draw: draws it.
    """
    try:
        draw()
    except Exception as error:  # of fonts, colours or the disk
        print(f"{what} can't be drawn ({type(error).__name__}: {error})", file=sys.stderr)
        return False
    return True


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def new_figure(n_panels: int, width: float, height: float, per_row: int = 3) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels in rows, each of a width and height in inches."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = min(n_panels, per_row)
    n_rows = -(-n_panels // n_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        for spare in panels[n_panels:]:
            spare.remove()
        return figure, panels[:n_panels]


def _defined(rows: Sequence[Row], name: str, up: str) -> list[Row]:
    return [row for row in rows if np.isfinite([row.values.get(name, np.nan), row.values.get(up, np.nan)]).all()]


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row.values[name] for row in rows]


def _points(rows: Sequence[Row], name: str, up: str) -> list[tuple[float, float]]:
    return list(zip(_values(rows, name), _values(rows, up), strict=True))


def _bars(rows: Sequence[Row], name: str, up: str) -> list[tuple[float, float]]:
    """Points along the error bars."""
    points = []
    for row, (x, y) in zip(rows, _points(rows, name, up), strict=True):
        for share in (-1.0, -0.5, 0.5, 1.0):
            points += [(x + share * row.errors.get(name, 0.0), y), (x, y + share * row.errors.get(up, 0.0))]
    return points


def _draw_front(
    panel: Axes, rows: Sequence[Row], name: str, up: str, line: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """Draw the front and return points along it."""
    xs, ys = _values(rows, name), _values(rows, up)
    signed = [[v if metric(n).higher_is_better else -v for v in values] for n, values in ((name, xs), (up, ys))]
    front = pareto_front(*signed)
    corners = [xs[i] for i in front], [ys[i] for i in front]
    panel.plot(*corners, label="Pareto front", color=FRONT, zorder=1, **line)
    along = np.linspace(0, len(front) - 1, 30 * len(front))
    return list(zip(*(np.interp(along, range(len(front)), corner) for corner in corners), strict=True))


def _draw_points(panel: Axes, rows: Sequence[Row], groups: Sequence[str], name: str, up: str) -> None:
    for place, group in enumerate(groups):
        members = [row for row in rows if row.group == group]
        panel.errorbar(
            _values(members, name),
            _values(members, up),
            xerr=[row.errors.get(name, 0.0) for row in members],
            yerr=[row.errors.get(up, 0.0) for row in members],
            fmt=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=8,
            markeredgecolor="white",
            elinewidth=1,
            capsize=2,
            label=group,
        )
    panel.margins(0.22, 0.15)  # room for the names


def _along(points: Sequence[tuple[float, float]], n: int = 12) -> list[tuple[float, float]]:
    """Return points on the line that joins some, n from each to the next."""
    shares = [place / n for place in range(n)]
    pairs = pairwise(points)
    return [(x + share * (to_x - x), y + share * (to_y - y)) for (x, y), (to_x, to_y) in pairs for share in shares]


def _draw_sweep(panel: Axes, title: str, rows: Sequence[Row], place: int, name: str, up: str) -> None:
    panel.errorbar(
        _values(rows, name),
        _values(rows, up),
        xerr=[row.errors.get(name, 0.0) for row in rows],
        yerr=[row.errors.get(up, 0.0) for row in rows],
        fmt=f"{MARKERS[place % len(MARKERS)]}-",
        color=COLOURS[place % len(COLOURS)],
        markersize=3,
        linewidth=1,
        elinewidth=0.6,
        alpha=0.8,
        label=title,
    )


def name_axes(panel: Axes, name: str, up: str) -> None:
    """Name what the axes show, and turn them so that better is up and to the right."""
    panel.set_xlabel(f"{name}   ({MEANINGS[name.partition('@')[0]]} →)")
    panel.set_ylabel(f"{up}   ({MEANINGS[up.partition('@')[0]]} →)")
    if not metric(name).higher_is_better:
        panel.invert_xaxis()
    if not metric(up).higher_is_better:
        panel.invert_yaxis()
