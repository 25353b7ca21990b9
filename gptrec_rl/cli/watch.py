"""`gptrec-rl watch`: a view of a tuning run, from what its folder holds; it neither helps nor disturbs the run."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER
from gptrec_rl.errors import InputError

N_VALIDATIONS = 12
REFRESH_S = 1.0


@click.command()
@click.argument("run_dir", type=FOLDER)
@click.option("--once", is_flag=True, help="Print the state of the run with all validations, and end.")
def watch(run_dir: Path, once: bool) -> None:
    """Follow a tuning run until it is finished, or Ctrl-C."""
    from gptrec_rl.config import TuneConfig
    from gptrec_rl.config_files import read_config
    from gptrec_rl.reporting.history import RunFollower
    from gptrec_rl.reporting.snapshot import snapshot

    config_file = run_dir / "config.toml"
    if not config_file.exists():
        raise InputError(f"{run_dir} is not a run folder: it has no {config_file.name}; give the --run-dir of `tune`")
    title = f"{run_dir}  goal {read_config(TuneConfig, config_file).goal}"
    follower = RunFollower(run_dir)
    if once or follower.refresh().is_finished:
        click.echo(snapshot(follower.refresh(), title, time.time()))
        return

    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            history = follower.refresh()
            live.update(Text(snapshot(history, title, time.time(), N_VALIDATIONS)), refresh=True)
            if history.is_finished:
                return
            time.sleep(REFRESH_S)
