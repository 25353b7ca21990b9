"""The Exporter process: `python -m services.exporter --run-dir R`; a page for Prometheus, and the records of a run.

The Supervisor writes the records of the fleets that it starts; where it doesn't run (compose), `--write-records` does.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
from prometheus_client import CollectorRegistry, start_http_server

from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.cli.service import shown_errors
from gptrec_rl.fleet.processes import TERMINATED, stop_event
from gptrec_rl.telemetry.exporter import Exporter, FleetPage
from gptrec_rl.telemetry.folders import read_tuning_config
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import RedisMetrics
from gptrec_rl.transport.connection import connect

BLOCK_S = 1.0
REDIS_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@redis_options(required=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 in a container.")
@click.option("--port", default=9464, show_default=True, help="Of the page /metrics; 0 takes a free one.")
@click.option("--write-records", is_flag=True, help="Write metrics.jsonl and the like; only where no Supervisor runs.")
def main(run_dir: Path, redis_url: str, address: str, port: int, write_records: bool) -> None:
    """Show a run's metrics to Prometheus until told to stop."""
    stop = stop_event()
    with shown_errors():
        config = read_tuning_config(run_dir)
        client = connect(redis_url)
    page, registry = FleetPage(), CollectorRegistry()
    registry.register(page)
    server, _ = start_http_server(port, address, registry)
    _log.info("http://%s:%d/metrics", address, server.server_port)
    records = RunRecords(run_dir) if write_records else None
    exporter = Exporter(RedisMetrics(client, config.run_id), page, records)
    while not stop.is_set():
        exporter.step(BLOCK_S)
        if not page.is_connected:
            stop.wait(REDIS_PAUSE_S)
    while exporter.step():
        pass
    sys.exit(TERMINATED)


if __name__ == "__main__":
    main()
