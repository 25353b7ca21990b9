"""What the service processes of a fleet have in common: options, logging, and how bad input ends them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gptrec_rl.errors import InputError
from gptrec_rl.fleet.processes import BAD_INPUT
from gptrec_rl.fleet.redis_option import redis_options

if TYPE_CHECKING:
    from gptrec_rl.fleet.run_folder import Run

IDLE_S = 0.05
"""Pause of a process that has nothing to do, in seconds."""

F = TypeVar("F", bound=Callable[..., Any])


def service_options(command: F) -> F:
    """Add the options that every service has."""
    for option in (
        redis_options(required=True),
        click.option("--data", type=click.Path(path_type=Path), help="Data file; left out: the configured one."),
        click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Made by `gptrec-rl tune`."),
    ):
        command = option(command)
    return command


@contextmanager
def start_service(run_dir: Path, data: Path | None) -> Iterator[Run]:
    """Open a run for a service; what can't get better by a restart ends the process with the code that says so."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    from gptrec_rl.fleet.run_folder import Run
    from gptrec_rl.models.precision import keep_memory

    keep_memory()
    try:
        yield Run.open(run_dir, data)
    except InputError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(BAD_INPUT)
