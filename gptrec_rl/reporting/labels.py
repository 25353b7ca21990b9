"""Places names beside the points of a picture so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

DISTANCES = (9, 16, 26, 38)  # points
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
    from matplotlib.transforms import Bbox

    taken = [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)
        for radius, places in ((8, points), (3, avoid))
        for x, y in axes.transData.transform(np.reshape(places, (-1, 2)))
    ]
    for name, point, colour in zip(names, points, colours, strict=True):
        text = axes.annotate(name, point, (0.0, 0.0), textcoords="offset points", fontsize=9, color=colour)
        text.set_in_layout(False)
        taken.append(_place(text, axes, taken))


def _place(text: Annotation, axes: Axes, taken: Sequence[Bbox]) -> Bbox:
    """Move a name to the nearest place where it covers least, and return its box."""

    def box_at(offset: tuple[float, float]) -> Bbox:
        across, up = offset
        text.set_position(offset)
        text.set_horizontalalignment("center" if abs(across) < 1 else "left" if across > 0 else "right")
        text.set_verticalalignment("center" if abs(up) < 1 else "bottom" if up > 0 else "top")
        return text.get_window_extent()

    def hidden(offset: tuple[float, float]) -> float:
        box = box_at(offset)
        outside = box.width * box.height - _common(box, axes.bbox)
        return round(outside + sum(_common(box, other) for other in taken), 3)

    offsets = [(d * math.cos(angle), d * math.sin(angle)) for d in DISTANCES for angle in ANGLES]
    return box_at(min(offsets, key=hidden))


def _common(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share, in square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
