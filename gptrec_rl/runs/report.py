"""The end of a fleet of containers: it is waited for, the others are told to end, and what came out is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gptrec_rl.decoding import NextK
from gptrec_rl.fleet.processes import StopEvent
from gptrec_rl.models.markov import MarkovChain
from gptrec_rl.reporting.comparison import Compared, compare
from gptrec_rl.reporting.progress import ProgressBar
from gptrec_rl.runs.run_folder import PREPARED, Run
from gptrec_rl.store.trained_models import STUDENT, load_policy
from gptrec_rl.telemetry.history import RunFollower, RunHistory
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.control import Control

POLL_S = 1.0
SILENT_AFTER = 2  # heartbeats


def report(run: Run, control: Control, stop: StopEvent, picture: Path) -> str | None:
    """Wait for a run's end, tell the others to end, and return a table of what came out; None if it was stopped.

    Args:
        run: whose records somebody writes into its folder.
        control: of the run.
        stop: ends the waiting.
        picture: where to draw.
    """
    history = _wait_for_the_end(run, control, stop)
    if stop.is_set():
        return None
    control.stop()
    table, is_drawn = _table(run, picture)
    _stop_latecomers(run, control, stop)
    return (
        f"\n{table}\n\nArrows point to better. All {len(run.split.test.users):,} test users. {history.step:,} steps in "
        f"{history.seconds / 60:.1f} minutes, {len(history.validations)} policies validated."
        + (f"\nPicture: {picture}" if is_drawn else "")
    )


def _wait_for_the_end(run: Run, control: Control, stop: StopEvent) -> RunHistory:
    """Follow the records until the budget is used and the last policy is scored, or somebody stops the run.

    What an optimiser said before the run was last prepared was about an earlier budget.
    """
    before = run.folder / PREPARED
    earlier = int(before.read_text(encoding="utf-8")) if before.exists() else 0
    n_stops = control.wishes().n_stops
    follower, bar = RunFollower(run.folder), ProgressBar(f"tuning {run.config.goal}")
    try:
        while True:
            history = follower.refresh()
            said = history.recent["optimiser", 0]
            is_of_now = bool(said) and said[-1].token > earlier
            if (history.is_finished and is_of_now) or control.wishes().n_stops > n_stops or stop.wait(POLL_S):
                return history
            bar.show(history.progress if is_of_now else 0.0, f"step {history.step:,}")
    finally:
        bar.close()


def _stop_latecomers(run: Run, control: Control, stop: StopEvent) -> None:
    """Repeat the stop until nobody is heard any more: who was just being started has missed it."""
    follower = RunFollower(run.folder)
    heard, before = _last_words(follower.refresh()), None
    while heard != before and not stop.is_set():
        control.stop()
        stop.wait(SILENT_AFTER * run.config.fleet.heartbeat_s)
        before, heard = heard, _last_words(follower.refresh())


def _last_words(history: RunHistory) -> Mapping[tuple[str, int], MetricRecord]:
    return {who: said[-1] for who, said in history.recent.items() if said}


def _table(run: Run, picture: Path) -> tuple[str, bool]:
    catalogue, split = run.split.catalogue, run.split
    models = [
        Compared("Markov chain", "teacher", MarkovChain(split)),
        Compared("student", "student", NextK(load_policy(run.folder / STUDENT, catalogue))),
        Compared(f"tuned: {run.config.goal}", "tuned", NextK(load_policy(run.folder, catalogue))),
    ]
    return compare(models, split, picture, f"{split.interactions.name}, all test users")
