"""`gptrec-rl fleet`: scale, pause, resume or stop a fleet at work, through its Redis, and see how it is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gptrec_rl.cli.options import FOLDER
from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.cores import require_few_enough

if TYPE_CHECKING:
    import redis

    from gptrec_rl.telemetry.stream import MetricRecord
    from gptrec_rl.transport.control import Control

AT_WORK_S = 60.0
"""Who reported within this time is at work."""
N_RECORDS = 2000

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Fleet:
    """A fleet at work.

    Attributes:
        run_id: of its run.
        client: of its Redis.
        control: takes wishes.
        records: what it reported last.
        now: the time by the clock of the records, which is that of Redis, whatever this machine's says.
    """

    run_id: str
    client: redis.Redis
    control: Control
    records: Sequence[MetricRecord]
    now: float

    def at_work(self) -> list[MetricRecord]:
        """Return what was reported within the last minute."""
        return [record for record in self.records if self.now - record.time < AT_WORK_S]

    @property
    def supervisor(self) -> MetricRecord | None:
        """What the Supervisor said last; None where it isn't one that keeps the processes running."""
        said = [record for record in self.at_work() if record.role == "supervisor"]
        return said[-1] if said else None


def _run_options(command: F) -> F:
    run_dir = click.option("--run-dir", type=FOLDER, required=True, help="The run folder that `tune` was given.")
    return run_dir(redis_options(required=False, help="Left out: the embedded Redis of the run.")(command))


@click.group()
def fleet() -> None:
    """Steer a fleet while it runs, and see how it is.

    On one machine the Supervisor (`gptrec-rl tune`) starts and ends generators as wished. All processes pause and stop
    by themselves, so that works wherever they run.
    """


@fleet.command()
@click.argument("wish", metavar="generator=N")
@_run_options
def scale(wish: str, run_dir: Path, redis_url: str | None) -> None:
    """Have N generators from now on; nothing else is started again."""
    from gptrec_rl.telemetry import names

    n_generators = _n_generators(wish)
    found = _reach(run_dir, redis_url)
    if found.supervisor is None:
        click.echo("No Supervisor runs this fleet: whoever started its containers has to. The command:", err=True)
        click.echo(f"docker compose up -d --no-deps --no-recreate --scale generator={n_generators} generator")
        return
    require_few_enough(n_generators, round(found.supervisor.values[names.FLEET_CORES]))
    found.control.scale(n_generators)
    click.echo(f"{n_generators} generators are wanted; `gptrec-rl fleet status` shows how many there are.")


@fleet.command()
@_run_options
def status(run_dir: Path, redis_url: str | None) -> None:
    """Show every process, the ledger, which limit bites, and what is wanted."""
    from gptrec_rl.telemetry import status as view
    from gptrec_rl.transport.redis_cache import ledger_of

    found = _reach(run_dir, redis_url)
    ledger = ledger_of(found.client, found.run_id)
    click.echo(view.status(found.records, ledger, found.control.wishes(), found.now))


@fleet.command()
@_run_options
def pause(run_dir: Path, redis_url: str | None) -> None:
    """Stop sampling and learning for now; processes stay, and the time doesn't count."""
    _reach(run_dir, redis_url).control.pause()
    click.echo("Paused; `gptrec-rl fleet resume` goes on.")


@fleet.command()
@_run_options
def resume(run_dir: Path, redis_url: str | None) -> None:
    """Go on after a pause."""
    _reach(run_dir, redis_url).control.resume()
    click.echo("Resumed.")


@fleet.command()
@_run_options
def stop(run_dir: Path, redis_url: str | None) -> None:
    """Stop the fleet, which saves where it is, to be resumed later."""
    found = _reach(run_dir, redis_url)
    found.control.stop()
    again = f"gptrec-rl tune --run-dir {run_dir} --on-existing resume" if found.supervisor else "docker compose up -d"
    click.echo(f"Stopping; `{again}` goes on.")


def _n_generators(wish: str) -> int:
    """Read a wish for generators.

    Raises:
        InputError: it is for another role, or for a number that makes no sense.
    """
    from gptrec_rl.transport.control import MAX_GENERATORS

    role, _, number = wish.partition("=")
    if role != "generator":
        near = "; did you mean generator?" if difflib.get_close_matches(role.lower(), ["generator"]) else ""
        raise InputError(f"{role!r} can't be scaled, only generators can: write generator=4{near}")
    if not (number.isascii() and number.removeprefix("-").isdigit()):
        raise InputError(f"{wish!r} names no number of generators; write generator=4")
    n = int(number[:9])
    if n < 1:
        raise InputError(
            f"a fleet of {n} generators generates nothing; ask for 1 or more, or use `gptrec-rl fleet pause`"
        )
    if n > MAX_GENERATORS:
        raise InputError(f"{number[:20]} generators are too many for one Redis; ask for {MAX_GENERATORS} or fewer")
    return n


def _reach(run_dir: Path, redis_url: str | None) -> _Fleet:
    """Find the fleet that is at work on a run.

    Raises:
        InputError: there is no such run, or nobody is at work on it.
    """
    from gptrec_rl.telemetry.folders import read_tuning_config
    from gptrec_rl.telemetry.stream import RedisMetrics
    from gptrec_rl.transport.connection import connect
    from gptrec_rl.transport.control import RedisControl

    run_id = read_tuning_config(run_dir).run_id
    client = connect(redis_url or _embedded_url(run_dir))
    stream = RedisMetrics(client, run_id)
    found = _Fleet(run_id, client, RedisControl(client, run_id), stream.last(N_RECORDS), stream.now())
    if not found.at_work():
        raise InputError(
            f"no fleet is at work on {run_dir}: nobody has reported for {AT_WORK_S:.0f} s; start one with `gptrec-rl "
            "tune --on-existing resume`"
        )
    return found


def _embedded_url(run_dir: Path) -> str:
    from gptrec_rl.transport.connection import connect
    from gptrec_rl.transport.embedded import url_of

    url = url_of(run_dir / "redis")
    try:
        connect(url or "").close()
    except InputError:
        raise InputError(
            f"no fleet is at work on {run_dir}: no embedded Redis of this machine answers; give --redis-url if it "
            "meets elsewhere, or start one with `gptrec-rl tune --on-existing resume`"
        ) from None
    return str(url)


@fleet.command()
@click.argument("run_id")
@click.option("--password-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
def acl(run_id: str, password_file: Path) -> None:
    """Print a Redis' ACL line of the user `fleet`, for whom the keys of one run are open.

    RUN_ID stands in the config.toml of the run's folder.
    """
    from gptrec_rl.transport.access import read_password, user_line

    click.echo(user_line(run_id, read_password(password_file)))
