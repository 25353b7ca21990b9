"""`--redis-url` and `--redis-password-file`: how commands and services are told where Redis is, and its password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gptrec_rl.errors import InputError
from gptrec_rl.transport.access import read_password

_PASSWORD = "gptrec_rl.redis_password"

F = TypeVar("F", bound=Callable[..., Any])


def redis_options(*, required: bool, help: str = "Where the fleet meets.") -> Callable[[F], F]:
    """Add both options; the command gets `redis_url`, with the password of the file unless it has one of its own."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--redis-password-file",
                envvar="GPTREC_REDIS_PASSWORD_FILE",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                callback=_read,
                expose_value=False,
                is_eager=True,  # before the URL that it completes
                help="File with the password of Redis, which a command line would show to everybody.",
            ),
            click.option("--redis-url", envvar="GPTREC_REDIS_URL", required=required, callback=_complete, help=help),
        ):
            command = option(command)
        return command

    return add


def _read(context: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    try:
        context.meta[_PASSWORD] = read_password(file)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def _complete(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    from gptrec_rl.transport.connection import with_password  # Redis' client is slow, and help comes in an instant.

    password = context.meta.get(_PASSWORD)
    return url if url is None or password is None else with_password(url, password)
