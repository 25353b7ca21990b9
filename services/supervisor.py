"""The Supervisor process: `python -m services.supervisor --run-dir R`; `gptrec-rl tune` runs the same in its own."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from torch.cuda import is_available

from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.cli.service import shown_errors
from gptrec_rl.fleet.supervisor import supervise
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.folders import read_tuning_config


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@redis_options(required=False, help="Left out: an embedded Redis.")
def main(run_dir: Path, redis_url: str) -> None:
    """Run the fleet of a prepared run folder."""
    with shown_errors():
        config = read_tuning_config(run_dir)
        with end_recorded(run_dir):
            sys.exit(supervise(run_dir, config, redis_url=redis_url, optimiser_on_gpu=is_available()))


if __name__ == "__main__":
    main()
