"""Starts, watches and stops the fleet of one machine, and writes its metrics stream to disk.

`gptrec-rl tune` runs it in process; `python -m services.supervisor --run-dir R` is the same by itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import click
import psutil
import redis

from gptrec_rl.cli import BadInput
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.cores import share_cores
from gptrec_rl.fleet.processes import STOP_GRACE_S, Child, ProcessGroup
from gptrec_rl.fleet.records import RunRecords
from gptrec_rl.fleet.redis_option import redis_options
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import EmbeddedRedis
from gptrec_rl.transport.metrics import CAPACITY, PAGE_SIZE, MetricRecord, MetricsStream, RedisMetrics

REDIS_URL_VARIABLE = "GPTREC_REDIS_URL"
HANG_AFTER_S = 300.0
LAST_VALIDATION_S = 900.0
POLL_S = 0.25

_log = logging.getLogger(__name__)


def fleet_children(run_dir: Path, redis_url: str, n_generators: int, optimiser_on_gpu: bool) -> list[Child]:
    """Describe the fleet of a run: one optimiser, one validator, the generators, sharing this process's cores."""
    plan = share_cores(n_generators, psutil.Process().cpu_affinity(), optimiser_on_gpu)
    start = (sys.executable, "-P", "-m")  # a folder `services` of the user's is not ours
    run = ("--run-dir", str(run_dir))
    secret = {REDIS_URL_VARIABLE: redis_url}
    return [
        Child("optimiser", 0, (*start, "services.optimiser", *run), plan.optimiser, secret),
        Child("validator", 0, (*start, "services.validator", *run), plan.validator, secret),
        *(
            Child("generator", index, (*start, "services.generator", *run, "--index", str(index)), share, secret)
            for index, share in enumerate(plan.generators)
        ),
    ]


class Supervisor:
    """Keeps a fleet running until its optimiser is done."""

    def __init__(
        self,
        run_dir: Path,
        children: Sequence[Child],
        stream: MetricsStream,
        *,
        embedded_redis: EmbeddedRedis | None = None,
        hang_after_s: float = HANG_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            run_dir: gets logs and records.
            children: with exactly one of role "optimiser".
            stream: what the children write. The id in a record is the child's index.
            embedded_redis: a server to start again when it dies.
            hang_after_s: a child that sends no record for so long is killed and started again.
            clock: seconds.
        """
        self._group = ProcessGroup(children, run_dir / "logs", os.environ, clock)
        self._run_dir = run_dir
        self._records = RunRecords(run_dir)
        self._stream = stream
        self._embedded_redis = embedded_redis
        self._hang_after_s = hang_after_s
        self._clock = clock
        self._heard_at: dict[tuple[str, int], float] = {}
        self._deaf_until = 0.0
        self._trouble: str | None = None
        self._signal: int | None = None

    def run(self, on_record: Callable[[MetricRecord], None] | None = None) -> int:
        """Run the fleet, in the main thread; return the exit code.

        0: the optimiser did all its steps, and the validator has scored the last policy. 128 + the signal's number:
        SIGINT or SIGTERM stopped it, and the run can be resumed; a second signal doesn't wait for the children.

        Args:
            on_record: called with each record of the stream once.

        Raises:
            ChildFailedError: a child can't go on; the others are stopped.
        """
        show = on_record or (lambda record: None)
        with self._signals_noted(), self._group:
            self._group.start()
            while not self._signal and not self._group.is_done("optimiser"):
                self._step(show)
            if not self._signal:
                self._wind_down(show)
            self._group.stop(STOP_GRACE_S)
            while self._drain(show):
                pass
        return 128 + self._signal if self._signal else 0

    def _step(self, show: Callable[[MetricRecord], None]) -> None:
        time.sleep(POLL_S)
        if self._embedded_redis:
            self._embedded_redis.revive()
        for _ in range(CAPACITY // PAGE_SIZE):  # all that has come while this process was paused
            if not self._drain(show):
                break
        self._group.poll()
        self._kill_hanging()

    def _wind_down(self, show: Callable[[MetricRecord], None]) -> None:
        _log.info("the optimiser is done; the validator scores the last policy")
        self._group.stop(STOP_GRACE_S, "generator")
        self._group.finish("validator")
        deadline = self._clock() + LAST_VALIDATION_S
        while not self._signal and not self._group.is_done("validator"):
            if self._clock() > deadline:
                _log.warning("the validator hasn't scored the last policy within %.0f s", LAST_VALIDATION_S)
                return
            self._step(show)

    def _drain(self, show: Callable[[MetricRecord], None]) -> bool:
        """Take a page of the stream to disk and to the viewer; say whether there was one.

        A Redis that is away and a disk that is full are waited for: the stream keeps what is to be written.
        """
        before = self._records.cursor
        try:
            records, cursor = self._stream.read(before)
            if cursor != before:
                self._records.append(records, cursor)
        except redis.RedisError as error:
            return self._wait_for("Redis", error)
        except OSError as error:
            self._records = RunRecords(self._run_dir)  # without what was written in part
            return self._wait_for("room for records on the disk", error)
        self._trouble = None
        for record in records:
            self._heard_at[record.role, record.id] = self._clock()
            show(record)
        return cursor != before

    def _wait_for(self, what: str, error: Exception) -> bool:
        """Say once what is waited for; who can't be heard meanwhile isn't hanging. There was no page."""
        if what != self._trouble:
            _log.warning("the Supervisor waits for %s: %s", what, error)
        self._trouble, self._deaf_until = what, self._clock()
        return False

    def _kill_hanging(self) -> None:
        for running in self._group.running():
            child = running.child
            heard_at = max(running.started_at, self._heard_at.get((child.role, child.index), 0.0), self._deaf_until)
            silent_s = self._clock() - heard_at
            if silent_s > self._hang_after_s:
                _log.warning("%s has sent nothing for %.0f s and is killed", child.name, silent_s)
                self._group.kill(child)

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the loop rather than this process."""

        def note(number: int, _: FrameType | None) -> None:
            if self._signal:
                for running in self._group.running():
                    self._group.kill(running.child)
            self._signal = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def supervise(
    run_dir: Path,
    config: TuneConfig,
    *,
    redis_url: str | None,
    optimiser_on_gpu: bool,
    on_record: Callable[[MetricRecord], None] | None = None,
) -> int:
    """Run the fleet of a prepared run folder on this machine to its end; the exit code is `Supervisor.run`'s.

    Args:
        run_dir: the run folder; its `config.toml` is what the children read.
        config: the same configuration.
        redis_url: None starts a Redis for this run, with its data in the run folder.
        optimiser_on_gpu: whether the optimiser computes on a GPU, which leaves the cores to others.
        on_record: see `Supervisor.run`.

    Raises:
        InputError: Redis can't be used, or a child can't go on (`ChildFailedError`).
    """
    with ExitStack() as stack:
        embedded = EmbeddedRedis(run_dir / "redis") if redis_url is None else None
        url = stack.enter_context(embedded) if embedded else str(redis_url)
        children = fleet_children(run_dir, url, config.fleet.n_generators, optimiser_on_gpu)
        stream = RedisMetrics(connect(url), config.run_id)
        return Supervisor(run_dir, children, stream, embedded_redis=embedded).run(on_record)


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@redis_options(required=False, help="Left out: an embedded Redis.")
def main(run_dir: Path, redis_url: str | None) -> None:
    """Run the fleet of a prepared run folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        config = read_config(TuneConfig, run_dir / "config.toml")
        from torch.cuda import is_available  # Slow, and `tune`, which imports this module, helps in an instant.

        code = supervise(run_dir, config, redis_url=redis_url, optimiser_on_gpu=is_available())
    except InputError as error:
        raise BadInput(str(error)) from error
    sys.exit(code)


if __name__ == "__main__":
    main()
