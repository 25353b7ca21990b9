"""The picture of a tuning run: the validator's way through NDCG and what the goal trades it for.

Drawn into the run folder and TensorBoard's event files, by the `RunRecords` of a run that goes on and at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.metrics import metric
from gptrec_rl.reporting.figures import COLOURS, FRONT, name_axes, new_figure, save
from gptrec_rl.reporting.labels import place_labels
from gptrec_rl.telemetry.event_files import FOLDER, EventFiles
from gptrec_rl.telemetry.history import RunFollower, RunHistory, Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATH_PICTURE = "report/validator-path.png"
PATH_NAME = "validator/path"
DRAW_EVERY_S = 60.0


def traded_metrics(values: Mapping[str, float]) -> tuple[str, list[str]]:
    """Return the name of NDCG at the model's K, and of what is traded against it; ILD needs genres."""
    names = {name.partition("@")[0]: name for name in values}
    return names["NDCG"], [names[metric] for metric in ("nPCOUNT", "ILD") if metric in names]


def draw_path(run_dir: Path, goal: str, history: RunHistory) -> Path:
    """Draw the path of a run that has at least one scored policy, and return the file."""
    accuracy, others = traded_metrics(history.validations[-1].values)
    second = others[0] if "pcount" in goal else others[-1]
    picture = run_dir / PATH_PICTURE
    validation_path(history.validations, picture, (accuracy, second), title=goal)
    EventFiles(run_dir / FOLDER).add_picture(PATH_NAME, picture.read_bytes(), history.step)
    return picture


class PathPicture:
    """The path of a run that goes on, drawn anew at new scores, but not all the time.

    Args:
        run_dir: of the run.
        clock: seconds.
    """

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_dir = run_dir
        self._follower = RunFollower(run_dir)
        self._clock = clock
        self._drawn_at = clock()

    def refresh(self) -> None:
        """Draw what the records on disk have, if the last drawing is a minute ago."""
        if self._clock() - self._drawn_at < DRAW_EVERY_S:
            return
        self._drawn_at = self._clock()
        history = self._follower.refresh()
        if history.validations:
            draw_path(self._run_dir, read_config(TuneConfig, self._run_dir / "config.toml").goal, history)


def validation_path(
    records: Sequence[Validation], path: Path, metrics: tuple[str, str] = ("NDCG@10", "ILD@10"), title: str = ""
) -> None:
    """Draw both metrics against learner steps, and the way through the plane of the two, as a PNG.

    Args:
        records: at least one, in the order of their steps.
        path: of the PNG.
        metrics: first the one of accuracy, then the one that is traded against it.
        title: above the panels.
    """
    figure, panels = new_figure(3, width=4.6, height=4.0)
    steps = [record.step for record in records]
    minutes = [record.minutes for record in records]
    for panel, name, colour in zip(panels, metrics, COLOURS, strict=False):
        values = np.array([record.values[name] for record in records])
        errors = np.array([record.errors.get(name, np.nan) for record in records])
        panel.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.18, linewidth=0)
        panel.plot(steps, values, color=colour, marker="o", markersize=3)
        panel.set_xlabel("learner steps")
        panel.set_title(f"{name} {metric(name).arrow}")
        panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}\n{np.interp(x, steps, minutes):.0f} min")
        panel.set_xlim(left=min(steps))
        panel.locator_params(axis="x", nbins=5, integer=True)
    _draw_path(figure, panels[2], records, metrics)
    figure.suptitle(title, fontweight="bold")
    save(figure, path)


def _draw_path(figure: Figure, panel: Axes, records: Sequence[Validation], metrics: tuple[str, str]) -> None:
    up, name = metrics
    xs, ys = [record.values[name] for record in records], [record.values[up] for record in records]
    panel.plot(xs, ys, color=FRONT, linewidth=1, zorder=1)
    dots = panel.scatter(xs, ys, c=[record.step for record in records], cmap="viridis", s=26, zorder=2)
    figure.colorbar(dots, ax=panel, label="learner steps", format="{x:,.0f}")
    name_axes(panel, name, up)
    panel.set_title(f"{up} against {name}")
    panel.margins(0.12)
    figure.draw_without_rendering()
    points = list(zip(xs, ys, strict=True))
    ends = dict(zip(("start", "end"), points[:1] + points[1:][-1:], strict=False))
    place_labels(panel, list(ends), list(ends.values()), ["black"] * len(ends), points)
