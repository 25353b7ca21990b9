"""A table of words as text or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table of words.

    Attributes:
        header: one word a column.
        lines: of as many.
        n_left: so many columns are aligned to the left, the others to the right.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    n_left: int = 1

    @classmethod
    def of(cls, lines: Sequence[Sequence[str]]) -> Grid:
        """Make one of lines of which the first is the header."""
        return cls(lines[0], lines[1:])

    def text(self) -> str:
        """Align the columns."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.lines, strict=True)]
        aligned = [
            "  ".join(
                word.ljust(width) if place < self.n_left else word.rjust(width)
                for place, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [self.header, *self.lines]
        ]
        return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])

    def markdown(self) -> str:
        """Return a Markdown table; what a word has of its signs and line ends is written otherwise."""
        ruler = ["---"] * self.n_left + ["---:"] * (len(self.header) - self.n_left)
        words = [[" ".join(word.split()).replace("|", "\\|") for word in line] for line in [self.header, *self.lines]]
        return "\n".join("| " + " | ".join(line) + " |" for line in [words[0], ruler, *words[1:]])
