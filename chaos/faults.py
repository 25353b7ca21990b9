"""What can happen to a process of a fleet, and how each is made to happen to a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos import disk
from chaos.fleet import (
    GENERATOR,
    OPTIMISER,
    REDIS,
    ROLES,
    SUPERVISOR,
    TIMEOUT_S,
    VALIDATOR,
    BrokenError,
    Fleet,
    is_alive,
)
from gptrec_rl.store.checkpoints import POLICIES

BATCH_BYTES = 2000
"""Only a rollout batch is a message as large as this."""


def kill(fleet: Fleet, role: str, seconds: float) -> float:
    """SIGKILL at any time."""
    process = fleet.process(role)
    return _killed(fleet, role, process, process.kill)


def kill_in_publish(fleet: Fleet, role: str, seconds: float) -> float:
    """SIGKILL in the middle of a publish, which is something else for each role.

    Generator: half a batch has been sent. Optimiser: a policy's files are being written. Validator: it has scored a
    policy, marked it perhaps, and half its record has been sent. Supervisor: records go to disk. Redis: it has read
    half a batch.
    """
    process = fleet.process(role)
    if role in (OPTIMISER, SUPERVISOR):
        return _killed(fleet, role, process, lambda: _kill_when(_change_of(fleet, role), process))
    sender, size = {GENERATOR: (GENERATOR, BATCH_BYTES), REDIS: (GENERATOR, BATCH_BYTES), VALIDATOR: (VALIDATOR, 500)}[
        role
    ]
    is_sprung = threading.Event()

    def spring() -> None:
        process.kill()
        is_sprung.set()

    def kill_it() -> None:
        fleet.proxy.spring_at_next(sender, size, spring)
        fleet.wait_until(is_sprung.is_set, f"a {sender} sends {size} bytes")

    return _killed(fleet, role, process, kill_it)


def stop(fleet: Fleet, role: str, seconds: float) -> float:
    """SIGSTOP, then SIGCONT."""
    process = fleet.process(role)
    process.suspend()
    time.sleep(seconds)
    process.resume()
    return time.time()


def cut(fleet: Fleet, role: str, seconds: float) -> float:
    """The network between a role and Redis, or between Redis and everybody, is gone."""
    roles = [each for each in ROLES if each != REDIS] if role == REDIS else [role]
    for each in roles:
        fleet.proxy.cut(each)
    time.sleep(seconds)
    for each in roles:
        fleet.proxy.heal(each)
    return time.time()


def fill_disk(fleet: Fleet, role: str, seconds: float) -> float:
    """The disk that a role writes to is full, until after that is noticed."""
    is_noticed = _notices_full_disk(fleet, role)
    with disk.filled(fleet.disk_of(role)):
        fleet.wait_until(is_noticed, f"somebody notices that the {role}'s disk is full")
        time.sleep(seconds)
    return time.time()


FAULTS: dict[str, Callable[[Fleet, str, float], float]] = {
    "kill": kill,
    "kill in publish": kill_in_publish,
    "stop": stop,
    "cut": cut,
    "full disk": fill_disk,
}
"""Each befalls a role, for some seconds if it lasts, and returns when its cause was gone (seconds since the epoch)."""


def _killed(fleet: Fleet, role: str, process: psutil.Process, kill_it: Callable[[], None]) -> float:
    """Kill a role's process, and do what whoever runs it does: start it again."""
    family = [process, *process.children(recursive=True)]
    kill_it()
    killed_at = time.time()
    fleet.wait_until(lambda: not any(map(is_alive, family)), f"the {role} is gone, with its children")
    if role == REDIS:
        fleet.revive_redis()
    elif role == SUPERVISOR:
        fleet.start()
    return killed_at


def _change_of(fleet: Fleet, role: str) -> Callable[[], bool]:
    if role == OPTIMISER:
        policies: Path = fleet.store / POLICIES
        return lambda: any(path.name.startswith(".") for path in policies.iterdir())
    records = fleet.run_dir / "metrics.jsonl"
    size = records.stat().st_size
    return lambda: records.stat().st_size != size


def _notices_full_disk(fleet: Fleet, role: str) -> Callable[[], bool]:
    if role == GENERATOR:
        return lambda: True  # it writes nothing but its log
    if role == REDIS:
        return fleet.redis_refuses_writes
    # The validator has nothing to write while the optimiser, on the same disk, can't publish.
    logs = (
        [fleet.log] if role == SUPERVISOR else [fleet.run_dir / f"logs/{each}-0.log" for each in (OPTIMISER, VALIDATOR)]
    )

    def n_noticed() -> int:
        return sum(log.read_text().count("No space left") for log in logs)

    n_before = n_noticed()
    return lambda: n_noticed() > n_before


def _kill_when(condition: Callable[[], bool], process: psutil.Process) -> None:
    """Look as often as possible."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise BrokenError(f"process {process.pid} publishes nothing")
    process.kill()
