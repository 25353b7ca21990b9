"""Progress that can't be shown keeps nobody from working."""

from __future__ import annotations

import errno

import pytest

from gptrec_rl.reporting import progress
from gptrec_rl.reporting.progress import ProgressBar


def test_a_full_disk_or_a_terminal_that_is_gone_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bar = ProgressBar("work")
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr("builtins.print", full)
    bar.show(0.5, "half")
    bar.close()
