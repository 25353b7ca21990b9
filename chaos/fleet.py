"""A small fleet on made-up data, with its Redis, its network and its disks in the hands of who runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from chaos import disk
from chaos.proxy import Proxy
from gptrec_rl.config import ModelConfig, TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.data import Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.runs.run_folder import prepare_run
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.trained_models import STORE, save_policy
from gptrec_rl.telemetry.stream import START, RedisMetrics
from gptrec_rl.transport.cache import CacheLimits, Ledger
from gptrec_rl.transport.connection import AwayError, connect
from gptrec_rl.transport.embedded import EmbeddedRedis
from gptrec_rl.transport.redis_cache import RedisCache

OPTIMISER, VALIDATOR, GENERATOR, SUPERVISOR, REDIS = ROLES = (
    "optimiser",
    "validator",
    "generator",
    "supervisor",
    "redis",
)
HEARTBEAT_S = 1.0
LEASE_S = 2.0
SETTINGS = (
    "fleet.n_histories=8",
    "fleet.n_lists=4",
    "fleet.publish_every=10",
    "fleet.checkpoint_every_s=2",
    "fleet.validator_share=0.9",
    f"fleet.lease_s={LEASE_S}",
    "ppo.policy_learning_rate=0.001",
    "goal=ild=1",
    "precision=fp32",
)
SIZES = ModelConfig(n_layers=2, n_heads=2, width=16, history_length=8)
ENDLESS = 10**9
POLL_S = 0.05
TIMEOUT_S = 600.0


class BrokenError(AssertionError):
    """The fleet doesn't do what it promises."""


@dataclass(frozen=True)
class Signs:
    """What shows that a fleet works.

    Attributes:
        n_drawn: batches that the optimiser has drawn, ever.
        heard_at: by role, when its process was last heard of, in seconds since the epoch; of several the earliest.
    """

    n_drawn: int
    heard_at: dict[str, float]


class Fleet:
    """Context manager around `gptrec-rl tune` on 60 made-up users, and the Redis that it uses.

    Args:
        folder: gets everything; if it may, its parts that fill up separately are disks of their own.
        n_generators: how many.
        heartbeat_s: see `fleet.heartbeat_s`; 60 of them have to be enough for a process to start.
    """

    def __init__(self, folder: Path, n_generators: int = 1, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._folder = folder
        self._n_generators = n_generators
        self._heartbeat_s = heartbeat_s
        self.run_dir = folder / "run"
        self.log = folder / "tune.log"
        self.has_disks = disk.can_mount()
        self._process: subprocess.Popen[bytes] | None = None
        self._cursor = START
        self._heard_at: dict[str, dict[int, float]] = defaultdict(dict)

    def __enter__(self) -> Fleet:
        with ExitStack() as stack:
            for part in (self.run_dir, self._folder / "redis", self.store):
                if part == self.store:
                    self.prepare_run()
                if self.has_disks:
                    stack.enter_context(disk.mounted(part))
            self._embedded_redis = EmbeddedRedis(self._folder / "redis")
            self._direct_url = stack.enter_context(self._embedded_redis)
            account, _, server = self._direct_url.rpartition("@")
            network = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))) / "redis.sock"
            self.proxy = stack.enter_context(Proxy(network, Path(server), self._role_of))
            self._url = f"{account}@{network}"
            self.client = connect(self._direct_url)
            stack.callback(self._kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def store(self) -> Path:
        """The checkpoint store's folder."""
        return self.run_dir / STORE

    @property
    def run_id(self) -> str:
        """What names the run in Redis."""
        return read_config(TuneConfig, self.run_dir / "config.toml").run_id

    def disk_of(self, role: str) -> Path:
        """Return the disk that a role writes to."""
        return {OPTIMISER: self.store, VALIDATOR: self.store, REDIS: self._folder / "redis"}.get(role, self.run_dir)

    def prepare_run(self) -> None:
        """Make data, a student and the run folder."""
        data, student = self._folder / "data.npz", self._folder / "student"
        interactions = synthetic.generate(n_users=60, n_items=48, mean_length=12)
        interactions.save(data)
        split = Split.of(interactions)
        files = GPTRec.create(split.catalogue.n_items, SIZES).to_files()
        origin = {"catalogue_hash": split.catalogue.hash, "split_hash": split.hash}
        save_policy(student, files, step=0, config={}, **origin)
        changes = [*SETTINGS, f"data={data}", f"steps={ENDLESS}"]
        changes += [f"fleet.n_generators={self._n_generators}", f"fleet.heartbeat_s={self._heartbeat_s}"]
        prepare_run(self.run_dir, read_config(TuneConfig, None, changes), student, "fail")

    def start(self, steps: int = ENDLESS) -> None:
        """Start it, or go on with it, as a user does."""
        command = [sys.executable, "-c", "from gptrec_rl.cli import main; main()", "tune"]
        command += ["--run-dir", str(self.run_dir), "--on-existing", "resume", "--steps", str(steps)]
        environment = {**os.environ, "GPTREC_REDIS_URL": self._url}
        if self._process is not None:
            self._process.wait()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def finish(self, n_more_steps: int) -> None:
        """Stop it, go on for so many steps more, and wait for the end.

        Raises:
            BrokenError: it doesn't end as it should.
        """
        self.end_by(signal.SIGTERM, 128 + signal.SIGTERM)
        newest = CheckpointStore(str(self.store)).learner_states()[-1]
        self.start(newest.step + n_more_steps)
        self.end_by(None, 0)

    def end_by(self, number: signal.Signals | None, code: int) -> None:
        """Wait for the end of the Supervisor, if need be after a signal, and of all its children.

        Raises:
            BrokenError: another exit code, or somebody is left.
        """
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        if number is not None:
            self._process.send_signal(number)
        found = self._process.wait(TIMEOUT_S)
        if found != code:
            raise BrokenError(f"the Supervisor ended with code {found}, not {code}:\n{self.log.read_text()[-2000:]}")
        self.wait_until(lambda: not any(map(is_alive, children)), "no child is left")

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the processes of a role that are there now."""
        if role == REDIS:
            return [psutil.Process(self._embedded_redis.pid)]
        if self._process is None or self._process.poll() is not None:
            return []
        supervisor = psutil.Process(self._process.pid)
        if role == SUPERVISOR:
            return [supervisor]
        return [child for child in supervisor.children() if is_alive(child) and self._role_of(child.pid) == role]

    def process(self, role: str) -> psutil.Process:
        """Wait until a process of a role is there, and return it; of several the first."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = self.processes(role)
            return bool(found)

        self.wait_until(is_there, f"there is a {role}")
        return found[0]

    def revive_redis(self) -> None:
        """Start Redis again, which has been killed."""
        killed = self._embedded_redis.pid

        def is_another() -> bool:
            self._embedded_redis.revive()  # nothing happens while the last thread of the killed one still ends
            return self._embedded_redis.pid != killed

        self.wait_until(is_another, "Redis is another process")

    def redis_refuses_writes(self) -> bool:
        """Try to write to Redis."""
        try:
            self.client.incr("chaos")
        except AwayError:
            return True
        return False

    def signs(self) -> Signs:
        """Look at what the fleet has told Redis.

        Raises:
            redis.RedisError: Redis is away.
        """
        stream = RedisMetrics(self.client, self.run_id)
        while True:
            records, self._cursor = stream.read(self._cursor)
            if not records:
                break
            for record in records:
                self._heard_at[record.role][record.id] = record.time
        return Signs(self.ledger().drawn, {role: min(times.values()) for role, times in self._heard_at.items()})

    def ledger(self) -> Ledger:
        """Return the cache's ledger."""
        return RedisCache(self.client, self.run_id, CacheLimits(), "", "").ledger()

    def wait_until_it_works(self, roles: tuple[str, ...], since: float) -> None:
        """Wait until these roles have reported after a time, and steps advance.

        Args:
            roles: all but Redis report.
            since: seconds since the epoch.

        Raises:
            BrokenError: it takes too long.
        """
        n_drawn: list[int] = []

        def works() -> bool:
            try:
                signs = self.signs()
            except redis.RedisError:
                return False
            n_drawn.append(signs.n_drawn)
            has_heard = all(signs.heard_at.get(role, 0.0) > since for role in roles if role != REDIS)
            return has_heard and signs.n_drawn > n_drawn[0]

        self.wait_until(works, f"steps advance and {', '.join(roles)} report")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something.

        Raises:
            BrokenError: it takes too long, or the fleet is over.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            is_over = self._process is not None and self._process.poll() not in (None, -signal.SIGKILL)
            if is_over or time.monotonic() > deadline:
                raise BrokenError(f"it never came true that {what}:\n{self.log.read_text()[-2000:]}")
            time.sleep(POLL_S)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no process of the fleet but Redis do anything within the context."""
        everybody = [process for role in ROLES if role != REDIS for process in self.processes(role)]
        for process in everybody:
            process.suspend()
        try:
            yield
        finally:
            for process in everybody:
                process.resume()

    def _role_of(self, pid: int) -> str:
        try:
            words = psutil.Process(pid).cmdline()
        except psutil.NoSuchProcess:
            return "nobody"
        return next((role for role in ROLES if f"services.{role}" in words), SUPERVISOR)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs; one that nobody waited for yet doesn't."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
