"""The Supervisor: starts, watches and stops the fleet of one machine, and writes its metrics stream to disk."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import psutil
import redis

from gptrec_rl.config import TuneConfig
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.fleet.cores import share_cores
from gptrec_rl.fleet.launcher import LOCALLY, Child, Launcher
from gptrec_rl.fleet.processes import STOP_GRACE_S, ProcessGroup
from gptrec_rl.stops import handled_by
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import Watchdog
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.reporter import REPORT_EVERY_S, Reporter
from gptrec_rl.telemetry.stream import CAPACITY, PAGE_SIZE, MetricRecord, MetricsStream, RedisMetrics
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.control import Control, MemoryControl, RedisControl
from gptrec_rl.transport.embedded import EmbeddedRedis

REDIS_URL_VARIABLE = "GPTREC_REDIS_URL"
HANGS_AFTER = 60  # heartbeats
STARTS_WITHIN = 3 * HANGS_AFTER  # who reads data and the run's state has yet to say a word
HEALTHY_AFTER = 12
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
        control: Control | None = None,
        generators: Callable[[int], Sequence[Child]] = lambda n: (),
        embedded_redis: EmbeddedRedis | None = None,
        heartbeat_s: float = REPORT_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        launcher: Launcher = LOCALLY,
    ) -> None:
        """Start nothing yet.

        Args:
            run_dir: gets logs and records.
            children: with exactly one of role "optimiser".
            stream: what the children write. The id in a record is the child's index.
            control: what the user wants of the run; None: nothing.
            generators: describes so many of them, the first ones of `children` among them.
            embedded_redis: a server to start again when it dies.
            heartbeat_s: how often a child sends a record; see `fleet.heartbeat_s`.
            clock: seconds.
            launcher: starts the children.
        """
        self._group = ProcessGroup(children, run_dir / "logs", clock, HEALTHY_AFTER * heartbeat_s, launcher)
        self._records = RunRecords(run_dir)
        self._stream = stream
        self._control = control or MemoryControl()
        self._n_stops = self._control.wishes().n_stops
        self._generators = generators
        self._embedded_redis = embedded_redis
        self._reporter = Reporter(stream, "supervisor", 0, every_s=heartbeat_s)
        self._history = RunHistory()
        self._watchdog = Watchdog(self._history)
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._heard_at: dict[tuple[str, int], float] = {}
        self._deaf_until = 0.0
        self._trouble: str | None = None
        self._signal: int | None = None

    def run(self, on_record: Callable[[MetricRecord], None] | None = None) -> int:
        """Run the fleet, in the main thread; return the exit code.

        0: the optimiser did all its steps, and the validator has scored the last policy. 128 + the signal's number:
        SIGINT or SIGTERM stopped it, and the run can be resumed; a second signal doesn't wait for the children. A stop
        that `gptrec-rl fleet` asks for is like SIGTERM.

        Args:
            on_record: called with each record of the stream once.

        Raises:
            ChildFailedError: a child can't go on; the others are stopped.
        """
        show = on_record or (lambda record: None)
        with handled_by(self._note), self._group:
            self._group.start()
            while not self._signal and not self._group.is_done("optimiser"):
                self._step(show)
                self._follow_wishes()
            if not self._signal:
                self._wind_down(show)
                self._tell_others()
            self._group.stop(STOP_GRACE_S)
            while self._drain(show):
                pass
        return 128 + self._signal if self._signal else 0

    def _step(self, show: Callable[[MetricRecord], None]) -> None:
        time.sleep(POLL_S)
        if self._embedded_redis:
            try:
                self._embedded_redis.revive()
            except OSError as error:  # a full disk, or too many processes
                self._wait_for("its Redis to start again", error)
        for _ in range(CAPACITY // PAGE_SIZE):  # all that has come while this process was paused
            if not self._drain(show):
                break
        self._group.poll()
        self._kill_hanging()

    def _follow_wishes(self) -> None:
        """Do what `gptrec-rl fleet` asks for, and report how many generators there are."""
        try:
            wishes = self._control.wishes()
            if self._reporter.is_due:
                self._report(wishes.n_generators)
        except redis.RedisError as error:
            self._wait_for("Redis", error)
            return
        if wishes.n_stops > self._n_stops:
            self._signal = self._signal or signal.SIGTERM
        elif wishes.n_generators is not None:
            self._group.keep_running("generator", self._generators(wishes.n_generators))

    def _report(self, n_wanted: int | None) -> None:
        n_running = sum(running.child.role == "generator" for running in self._group.running())
        values = {
            names.FLEET_GENERATORS: float(n_running),
            names.FLEET_GENERATORS_WANTED: float(n_wanted or n_running),
            names.FLEET_CORES: float(len(psutil.Process().cpu_affinity())),
            names.FLEET_RESTARTS: float(self._group.n_restarts),
        }
        self._reporter.report(self._history.token, self._history.step, values)

    def _wind_down(self, show: Callable[[MetricRecord], None]) -> None:
        _log.info("the optimiser is done; the validator scores the last policy")
        self._group.stop(STOP_GRACE_S, "generator")
        self._group.finish("validator")
        begun = self._clock()
        while not self._signal and not self._group.is_done("validator"):
            heard_at = max((at for (role, _), at in self._heard_at.items() if role == "validator"), default=begun)
            if self._clock() > max(begun, heard_at) + LAST_VALIDATION_S:
                _log.warning("the last policy isn't scored: the validator was silent for %.0f s", LAST_VALIDATION_S)
                return
            self._step(show)

    def _tell_others(self) -> None:
        """End the generators that others have started, on other machines."""
        try:
            self._control.stop()
        except redis.RedisError as error:
            _log.warning("generators on other machines were not told that the run is over: %s", error)

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
            return self._wait_for("room for records on the disk", error)
        self._trouble = None
        for record in records:
            self._heard_at[record.role, record.id] = self._clock()
            self._history.add(record)
            show(record)
        self._watchdog.look()
        return cursor != before

    def _wait_for(self, what: str, error: Exception) -> bool:
        """Say once what is waited for; who can't be heard meanwhile isn't hanging. There was no page.

        Raises:
            InputError: waiting doesn't help.
        """
        if isinstance(error, InputError) and not isinstance(error, StorageError):
            raise error
        if what != self._trouble:
            _log.warning("the Supervisor waits for %s: %s", what, error)
        self._trouble, self._deaf_until = what, self._clock()
        return False

    def _kill_hanging(self) -> None:
        for running in self._group.running():
            child = running.child
            said_at = self._heard_at.get((child.role, child.index), 0.0)
            silent_s = self._clock() - max(running.started_at, said_at, self._deaf_until)
            patience = HANGS_AFTER if said_at > running.started_at else STARTS_WITHIN
            if silent_s > patience * self._heartbeat_s:
                _log.warning("%s has sent nothing for %.0f s and is killed", child.name, silent_s)
                self._group.kill(child)

    def _note(self, signal_number: int, _: FrameType | None) -> None:
        """Let SIGINT and SIGTERM end the loop rather than this process."""
        if self._signal:
            for running in self._group.running():
                self._group.kill(running.child)
        self._signal = signal_number


def supervise(
    run_dir: Path,
    config: TuneConfig,
    *,
    redis_url: str | None,
    optimiser_on_gpu: bool,
    launcher: Launcher = LOCALLY,
    on_record: Callable[[MetricRecord], None] | None = None,
) -> int:
    """Run the fleet of a prepared run folder on this machine to its end; the exit code is `Supervisor.run`'s.

    Args:
        run_dir: the run folder; its `config.toml` is what the children read.
        config: the same configuration.
        redis_url: None starts a Redis for this run, with its data in the run folder.
        optimiser_on_gpu: whether the optimiser computes on a GPU, which leaves the cores to others.
        launcher: starts the processes.
        on_record: see `Supervisor.run`.

    Raises:
        InputError: Redis can't be used, or a child can't go on (`ChildFailedError`).
    """
    with ExitStack() as stack:
        embedded = EmbeddedRedis(run_dir / "redis") if redis_url is None else None
        url = stack.enter_context(embedded) if embedded else str(redis_url)
        client, n_generators = connect(url), config.fleet.n_generators
        control = RedisControl(client, config.run_id)
        control.start(n_generators)

        def generators(n: int) -> list[Child]:
            children = fleet_children(run_dir, url, n, optimiser_on_gpu)
            return [child for child in children if child.role == "generator"]

        supervisor = Supervisor(
            run_dir,
            fleet_children(run_dir, url, n_generators, optimiser_on_gpu),
            RedisMetrics(client, config.run_id),
            launcher=launcher,
            control=control,
            generators=generators,
            embedded_redis=embedded,
            heartbeat_s=config.fleet.heartbeat_s,
        )
        return supervisor.run(on_record)
