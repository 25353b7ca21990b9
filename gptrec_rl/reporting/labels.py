"""Places names beside the points of a picture so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

DISTANCES = (9, 16, 26, 38, 60, 90, 130)  # points
LED_FROM = 38
"""A name that is so far from its point has a line to it."""
POINT_RADIUS, LINE_RADIUS = 8, 3  # pixels kept free around what is drawn
ANGLES = tuple(math.radians(degrees) for degrees in (0, 180, 90, 270, 45, 315, 135, 225))


def place_labels(
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    colours: Sequence[str],
    avoid: Sequence[tuple[float, float]],
) -> None:
    """Write each name at the free place nearest to its point; call it when everything else is drawn.

    Args:
        axes: whose limits and layout are final.
        names: one a point.
        points: x and y of each, in data coordinates.
        colours: of each name; its point's, so that crowded names can be told apart.
        avoid: further points that names should not cover.
    """
    centres = axes.transData.transform([*points, *avoid])
    radii = np.repeat([POINT_RADIUS, LINE_RADIUS], [len(points), len(avoid)])[:, None]
    taken = np.hstack([centres - radii, centres + radii])
    written = np.empty((0, 4))
    for name, point, colour in zip(names, points, colours, strict=True):
        text = axes.annotate(name, point, (0.0, 0.0), textcoords="offset points", fontsize=9, color=colour)
        text.set_in_layout(False)
        written = np.vstack([written, _place(text, axes, taken, written)])
        if _is_led(text):
            lead = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", point, text.get_position(), textcoords="offset points", arrowprops=lead)
            taken = np.vstack([taken, _lead(text, axes)])


def _is_led(text: Annotation) -> bool:
    return math.hypot(*text.get_position()) >= LED_FROM


def _place(text: Annotation, axes: Axes, taken: np.ndarray, written: np.ndarray) -> np.ndarray:
    """Move a name to the nearest place where it covers least, and return its box.

    Boxes are x0, y0, x1, y1 in pixels, [n, 4]: `taken` those that a name should not cover, `written` those of names,
    which the line to it should not cross either.
    """

    def box_at(offset: tuple[float, float]) -> np.ndarray:
        across, up = offset
        text.set_position(offset)
        text.set_horizontalalignment("center" if abs(across) < 1 else "left" if across > 0 else "right")
        text.set_verticalalignment("center" if abs(up) < 1 else "bottom" if up > 0 else "top")
        return np.array(text.get_window_extent().extents)

    def hidden(offset: tuple[float, float]) -> float:
        box = box_at(offset)
        outside = _common(box, box[None]) - _common(box, np.array([axes.bbox.extents]))
        crossed = sum(_common(part, written) for part in _lead(text, axes)) if _is_led(text) else 0.0
        return round(outside + _common(box, taken) + _common(box, written) + crossed, 3)

    offsets = [(d * math.cos(angle), d * math.sin(angle)) for d in DISTANCES for angle in ANGLES]
    return box_at(min(offsets, key=hidden))


def _lead(text: Annotation, axes: Axes) -> np.ndarray:
    """Return boxes along the line from a name's point to the name, [n, 4]."""
    start = axes.transData.transform(text.xy)
    way = np.array(text.get_position()) * axes.figure.dpi / 72  # [2], from points of 1/72 inch
    centres = start + np.linspace(0.0, 1.0, 2 + int(np.hypot(*way)) // LINE_RADIUS)[:, None] * way
    return np.hstack([centres - LINE_RADIUS, centres + LINE_RADIUS])


def _common(box: np.ndarray, others: np.ndarray) -> float:
    """Area that a box shares with others, added up, in square pixels."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(np.maximum(sides, 0.0).prod(axis=1).sum())
