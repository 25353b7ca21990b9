"""The picture of a tuning run: the validator's way through NDCG and what the goal trades it for.

Drawn into the run folder and TensorBoard's event files, by the `RunRecords` of a run that goes on and at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.reporting.figures import validation_path
from gptrec_rl.telemetry.event_files import FOLDER, EventFiles
from gptrec_rl.telemetry.history import RunFollower, RunHistory

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
