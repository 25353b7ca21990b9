"""Progress of a long job: a bar on a terminal, a line every half a minute where there is none."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from tqdm import tqdm

LINE_EVERY_S = 30.0


class ProgressBar:
    """Shows how much of a job's budget is used and how long the rest will take; the text behind it is the job's own.

    Args:
        title: in front of the bar.
    """

    def __init__(self, title: str) -> None:
        self._bar = tqdm(
            total=100.0,
            desc=title,
            bar_format="{desc} {percentage:5.1f}% |{bar:24}| {elapsed}<{remaining} {postfix}",
            disable=not sys.stderr.isatty(),
            file=sys.stderr,
        )
        self._title = title
        self._started = self._line_at = time.monotonic()

    def show(self, fraction: float, text: str) -> None:
        """Move the bar to a fraction (0..1) of the job; one beyond is the end."""
        with suppress(OSError):  # a full disk, or a terminal that is gone: the job goes on
            self._show(min(1.0, max(0.0, fraction)), text)

    def _show(self, fraction: float, text: str) -> None:
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(100.0 * fraction - self._bar.n)
        elif time.monotonic() - self._line_at >= LINE_EVERY_S:
            self._line_at = time.monotonic()
            spent_s = self._line_at - self._started
            left = f"{spent_s * (1 / fraction - 1):.0f} s left" if fraction > 0 else ""
            print(f"{self._title} {100 * fraction:5.1f}% {spent_s:.0f} s, {left}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar's line."""
        with suppress(OSError):
            self._bar.close()
