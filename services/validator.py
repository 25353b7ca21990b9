"""The Validator process: `python -m services.validator --run-dir R`; it scores the last policy before it stops."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from gptrec_rl.fleet.processes import TERMINATED, stop_event
from gptrec_rl.fleet.reporter import REPORT_EVERY_S
from gptrec_rl.fleet.service import IDLE_S, service_options, start_service
from gptrec_rl.transport import names


@click.command()
@service_options
def main(run_dir: Path, data: Path | None, redis_url: str) -> None:
    """Score the newest policy on the validation users, again and again, and mark the best."""
    stop = stop_event()
    with start_service(run_dir, data) as run:
        from gptrec_rl.fleet.validator import Validator

        validator = Validator(run.split, run.config, run.redis_transport(redis_url))
        share = run.config.fleet.validator_share
        while not stop.is_set():
            seconds = validator.step()
            waits_for = names.WAIT_POLICY if seconds is None else names.WAIT_TURN
            pause_until = time.monotonic() + (IDLE_S if seconds is None else seconds * (1 / share - 1))
            while not stop.is_set() and (pause_s := pause_until - time.monotonic()) > 0:
                stop.wait(min(pause_s, REPORT_EVERY_S))
                validator.reporter.waited(min(pause_s, REPORT_EVERY_S), waits_for)
                if validator.reporter.is_due:
                    validator.report()
        validator.step()
    sys.exit(TERMINATED)


if __name__ == "__main__":
    main()
