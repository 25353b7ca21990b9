"""The Generator process: `python -m services.generator --run-dir R [--index i]`; any number may run, anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gptrec_rl.cli.service import service_options, start_service
from gptrec_rl.fleet.orders import IDLE_S, Orders
from gptrec_rl.fleet.processes import stop_event


@click.command()
@click.option("--index", type=click.IntRange(0, 1023), help="Which of the Supervisor's.  [default: none of them]")
@service_options
def main(run_dir: Path, data: Path | None, redis_url: str, index: int | None) -> None:
    """Sample lists with the newest policy into the recommendation cache until told to stop."""
    stop = stop_event()
    with start_service(run_dir, data) as run:
        from gptrec_rl.fleet.generator import Generator

        transport = run.redis_transport(redis_url, stop.is_set)
        orders = Orders(stop, transport.control)
        generator = Generator(run.split, run.config, transport, index)
        with generator.reporter.kept_alive():
            while orders.go_on(generator):
                with orders.storage_waited_for(generator):
                    if not generator.step():
                        stop.wait(IDLE_S)
                        generator.waited(IDLE_S)
                if generator.reporter.is_due:
                    generator.report()
        generator.report()
    sys.exit(orders.exit_code)


if __name__ == "__main__":
    main()
