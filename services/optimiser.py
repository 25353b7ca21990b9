"""The Optimiser process: `python -m services.optimiser --run-dir R`; one a run, on the GPU if there is one."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptrec_rl.cli.service import service_options, start_service
from gptrec_rl.fleet.orders import IDLE_S, Orders
from gptrec_rl.fleet.processes import StopEvent, stop_event
from gptrec_rl.transport.lease import LeaseHeldError

LEASE_POLL_S = 0.2

if TYPE_CHECKING:
    from gptrec_rl.fleet.optimiser import Optimiser


@click.command()
@service_options
def main(run_dir: Path, data: Path | None, redis_url: str) -> None:
    """Learn from the recommendation cache and publish policies until the run's budget is used."""
    stop = stop_event()
    with start_service(run_dir, data) as run:
        from gptrec_rl.fleet.optimiser import Optimiser
        from gptrec_rl.fleet.recorder import Recorder
        from gptrec_rl.models.precision import best_device

        # A container that is started again has its name and process id again.
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        student = run.student().to(best_device())
        recorder = Recorder(run.folder, run.config, run.split, student) if run.config.fleet.record else None
        transport = run.redis_transport(redis_url, stop.is_set)
        orders = Orders(stop, transport.control)
        optimiser = Optimiser(student, run.split, run.config, transport, holder, recorder)
        with optimiser.reporter.kept_alive():
            _start(optimiser, 1.5 * run.config.fleet.lease_s, stop, orders)
            with optimiser.lease_kept(), optimiser.saved_at_the_latest():
                _learn(optimiser, orders, stop)
    if not optimiser.is_done:
        sys.exit(orders.exit_code)  # before the end, to be resumed


def _learn(optimiser: Optimiser, orders: Orders, stop: StopEvent) -> None:
    while not optimiser.is_done and orders.go_on(optimiser):
        with orders.storage_waited_for(optimiser):
            if optimiser.is_save_due:
                optimiser.save()
            waits_since = time.monotonic()
            if optimiser.step() is None:
                stop.wait(IDLE_S)
                optimiser.waited(time.monotonic() - waits_since)
        if optimiser.reporter.is_due:
            optimiser.report()
    while not optimiser.has_finished:
        with orders.storage_waited_for(optimiser):
            optimiser.finish()


def _start(optimiser: Optimiser, patience_s: float, stop: StopEvent, orders: Orders) -> None:
    """Start, if need be when the lease of a predecessor that was killed has run out; a living one renews its own."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with orders.storage_waited_for(optimiser):
                optimiser.start()
                return
        except LeaseHeldError:
            if time.monotonic() > deadline or stop.wait(LEASE_POLL_S):
                raise


if __name__ == "__main__":
    main()
