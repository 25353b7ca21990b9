"""`gptrec-rl watch`: a view of a tuning run, from what its folder holds; it neither helps nor disturbs the run."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER

N_VALIDATIONS = 12
REFRESH_S = 1.0


@click.command()
@click.argument("run_dir", type=FOLDER)
@click.option("--once", is_flag=True, help="Print the state of the run with all validations, and end.")
def watch(run_dir: Path, once: bool) -> None:
    """Follow a tuning run until its end, or Ctrl-C."""
    from gptrec_rl.telemetry.ending import end_of
    from gptrec_rl.telemetry.folders import read_tuning_config
    from gptrec_rl.telemetry.history import RunFollower
    from gptrec_rl.telemetry.snapshot import snapshot

    heading = f"{run_dir}  goal {read_tuning_config(run_dir).goal}"
    follower = RunFollower(run_dir)

    def look(n_validations: int | None = None) -> tuple[str, bool]:
        """Return what there is to see, and whether it is over."""
        history = follower.refresh()
        end = end_of(run_dir, history)
        title = heading if end is None else f"{heading}\n{end}"
        return snapshot(history, title, time.time(), n_validations), history.is_finished or end is not None

    view, is_over = look()
    if once or is_over:
        click.echo(view)
        return

    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            view, is_over = look(N_VALIDATIONS)
            live.update(Text(view), refresh=True)
            if is_over:
                return
            time.sleep(REFRESH_S)
