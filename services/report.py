"""Waits for the end of a fleet of containers, tells the others to end, and shows what came out, as the demo does.

`python -m services.report --run-dir R`, where R is what `services/prepare.py` made and the exporter writes records.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER
from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.cli.service import shown_errors
from gptrec_rl.fleet.processes import TERMINATED, stop_event
from gptrec_rl.runs.prepare import TUNED
from gptrec_rl.runs.report import report
from gptrec_rl.runs.run_folder import Run
from gptrec_rl.transport.connection import connect_patiently
from gptrec_rl.transport.control import RedisControl


@click.command()
@click.option("--run-dir", type=FOLDER, required=True, help="Made by `services.prepare`.")
@redis_options(required=True)
def main(run_dir: Path, redis_url: str) -> None:
    """Wait for a run's end and show its table."""
    stop = stop_event()
    with shown_errors(format="%(message)s"):
        run = Run.open(run_dir / TUNED)
        control = RedisControl(connect_patiently(redis_url, stop.is_set), run.config.run_id)
        text = report(run, control, stop, run_dir / "trade-off.png")
    if text is None:
        sys.exit(TERMINATED)
    click.echo(text)


if __name__ == "__main__":
    main()
