"""What the processes of a fleet have in common: their options, their log, and how bad input ends them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gptrec_rl.cli import plain_errors
from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.errors import InputError

if TYPE_CHECKING:
    from gptrec_rl.runs.run_folder import Run

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def service_options(command: F) -> F:
    """Add the options that every process of a run has."""
    for option in (
        redis_options(required=True),
        click.option("--data", type=click.Path(path_type=Path), help="Data file; left out: the configured one."),
        click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Made by `gptrec-rl tune`."),
    ):
        command = option(command)
    return command


@contextmanager
def shown_errors(remedy: str = "", format: str = "%(asctime)s %(name)s %(message)s") -> Iterator[None]:
    """Log to standard error; show bad input as a plain message that ends the process with its code.

    Args:
        remedy: behind the message.
        format: of a line of the log.
    """
    logging.basicConfig(level=logging.INFO, format=format, stream=sys.stderr)
    with plain_errors(remedy):
        yield


@contextmanager
def start_service(run_dir: Path, data: Path | None) -> Iterator[Run]:
    """Open a run for a process; what can't get better by a restart ends it with the code that says so."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    from gptrec_rl.models.precision import keep_memory
    from gptrec_rl.runs.run_folder import Run
    from gptrec_rl.telemetry.ending import record_failure

    keep_memory()
    try:
        yield Run.open(run_dir, data)
    except InputError as error:
        logger.error("%s", error)
        if error.exit_code == InputError.exit_code:  # the others are passing, or another Optimiser's business
            record_failure(run_dir, str(error))  # where no Supervisor runs, its log is elsewhere
        sys.exit(error.exit_code)
