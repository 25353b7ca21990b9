"""A table of words as text or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table whose first column is names and whose others are aligned to the right.

    Attributes:
        header: one word a column.
        lines: of as many.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def text(self) -> str:
        """Align the columns."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.lines, strict=True)]
        aligned = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in [self.header, *self.lines]
        ]
        return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])

    def markdown(self) -> str:
        """Return a Markdown table."""
        ruler = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join("| " + " | ".join(line) + " |" for line in [self.header, ruler, *self.lines])
