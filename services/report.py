"""Waits for the end of a fleet of containers, tells the others to end, and shows what came out, as the demo does.

`python -m services.report --run-dir R`, where R is what `services/prepare.py` made and the exporter writes records.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from gptrec_rl.cli import BadInput
from gptrec_rl.cli.options import FOLDER
from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.decoding import NextK
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.processes import TERMINATED, StopEvent, stop_event
from gptrec_rl.models.markov import MarkovChain
from gptrec_rl.reporting.comparison import Compared, compare
from gptrec_rl.reporting.progress import ProgressBar
from gptrec_rl.runs.run_folder import CONFIG, Run
from gptrec_rl.store.trained_models import STUDENT, load_policy
from gptrec_rl.telemetry.history import RunFollower, RunHistory
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.connection import connect_patiently
from gptrec_rl.transport.control import Control, RedisControl

POLL_S = 1.0
SILENT_AFTER = 2  # heartbeats


@click.command()
@click.option("--run-dir", type=FOLDER, required=True, help="Made by `services.prepare`.")
@redis_options(required=True)
def main(run_dir: Path, redis_url: str) -> None:
    """Wait for a run's end and show its table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = stop_event()
    try:
        run = Run.open(run_dir / "tuned")
        control = RedisControl(connect_patiently(redis_url), run.config.run_id)
        history = _wait_for_the_end(run, control, stop)
        if stop.is_set():
            sys.exit(TERMINATED)
        control.stop()
        table = _table(run, run_dir / "trade-off.png")
        _stop_latecomers(run, control, stop)
        click.echo(f"\n{table}\n")
    except InputError as error:
        raise BadInput(error) from error
    spent = (
        f"{history.step:,} steps in {history.seconds / 60:.1f} minutes, {len(history.validations)} policies validated"
    )
    click.echo(f"Arrows point to better. All {len(run.split.test.users):,} test users. {spent}.")
    click.echo(f"Picture: {run_dir / 'trade-off.png'}")


def _wait_for_the_end(run: Run, control: RedisControl, stop: StopEvent) -> RunHistory:
    """Follow the records until the budget is used and the last policy is scored, or somebody stops the run.

    What the optimiser said before the run was last prepared was about an earlier budget.
    """
    prepared_at = (run.folder / CONFIG).stat().st_mtime
    n_stops = control.wishes().n_stops
    follower, bar = RunFollower(run.folder), ProgressBar(f"tuning {run.config.goal}")
    try:
        while True:
            history = follower.refresh()
            said = history.recent["optimiser", 0]
            is_of_now = bool(said) and said[-1].time >= prepared_at
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


def _table(run: Run, picture: Path) -> str:
    catalogue, split = run.split.catalogue, run.split
    models = [
        Compared("Markov chain", "teacher", MarkovChain(split)),
        Compared("student", "student", NextK(load_policy(run.folder / STUDENT, catalogue))),
        Compared(f"tuned: {run.config.goal}", "tuned", NextK(load_policy(run.folder, catalogue))),
    ]
    return compare(models, split, picture, f"{split.interactions.name}, all test users")


if __name__ == "__main__":
    main()
