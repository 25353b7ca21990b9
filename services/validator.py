"""The Validator process: `python -m services.validator --run-dir R`; it scores the last policy before it stops."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptrec_rl.cli.service import service_options, start_service
from gptrec_rl.fleet.orders import IDLE_S, Orders
from gptrec_rl.fleet.processes import StopEvent, stop_event
from gptrec_rl.telemetry import names
from gptrec_rl.transport.control import Control

if TYPE_CHECKING:
    from gptrec_rl.fleet.validator import Validator

LAST_ROOM_S = 600.0
"""How long the score of the last policy waits for room on the disk; the Supervisor waits longer for it."""


@click.command()
@service_options
def main(run_dir: Path, data: Path | None, redis_url: str) -> None:
    """Score the newest policy on the validation users, again and again, and mark the best."""
    stop = stop_event()
    with start_service(run_dir, data) as run:
        from gptrec_rl.fleet.validator import Validator

        transport = run.redis_transport(redis_url, stop.is_set)
        orders = Orders(stop, transport.control)
        validator = Validator(run.split, run.config, transport)
        share = run.config.fleet.validator_share
        with validator.reporter.kept_alive():
            _validate(validator, orders, stop, share)
            _score_the_last(validator, transport.control)
    sys.exit(orders.exit_code)


def _validate(validator: Validator, orders: Orders, stop: StopEvent, share: float) -> None:
    rests_until = time.monotonic()
    while orders.go_on(validator):
        if time.monotonic() < rests_until:
            stop.wait(IDLE_S)
            validator.reporter.waited(IDLE_S, names.WAIT_TURN)
        else:
            with orders.storage_waited_for(validator):
                seconds = validator.step()
                if seconds is None:
                    stop.wait(IDLE_S)
                    validator.reporter.waited(IDLE_S, names.WAIT_POLICY)
                else:
                    rests_until = time.monotonic() + seconds * (1 / share - 1)
        if validator.reporter.is_due:
            validator.report()


def _score_the_last(validator: Validator, control: Control) -> None:
    """Score the newest policy; that this process is to stop doesn't keep it from waiting for room, for a while."""
    is_over, is_scored = StopEvent(), False
    orders = Orders(is_over, control)
    timer = threading.Timer(LAST_ROOM_S, is_over.set)
    timer.daemon = True
    timer.start()
    while not is_scored:
        with orders.storage_waited_for(validator):
            validator.step()
            is_scored = True


if __name__ == "__main__":
    main()
