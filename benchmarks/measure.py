"""The harness: each way of doing some work lives in a process of its own, on given cores, and works when told to.

Two ways take turns, so that what else the machine does hits both; the one that waits blocks on a pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE_S = 600.0
"""A child that answers nothing for so long is given up."""
_THREADS = "OMP_NUM_THREADS"


class ChildError(Exception):
    """A child failed or ended; says how."""


@dataclass(frozen=True)
class Way:
    """One way of doing some work.

    Attributes:
        build: called once in the child; a function of a module's top level. What it returns is called without
            arguments, does the work once, and returns how many units (lists, updates, ...) it did, or for work
            that is not a matter of speed what it found out.
        arguments: of `build`.
        calls: how often a round does the work.
    """

    build: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    calls: int = 1


@dataclass(frozen=True)
class Round:
    """What one round took.

    Attributes:
        seconds: of each call.
        results: what each call returned.
    """

    seconds: Sequence[float]
    results: Sequence[Any]

    @property
    def rate(self) -> float:
        """Units per second."""
        return float(sum(self.results) / sum(self.seconds))


class Child:
    """A process that builds a way and warms up with a round of it; to be closed.

    Args:
        way: what it does.
        cores: what it may run on; it computes with as many threads.
        warm_up: whether to do a round before the first that is asked for.
    """

    def __init__(self, way: Way, cores: Sequence[int], warm_up: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, way, tuple(cores), warm_up))
        with _environment({_THREADS: str(len(cores))}):  # read when torch is imported
            self._process.start()
        theirs.close()
        try:
            self._receive()
        except ChildError:
            self.__exit__(None, None, None)
            raise

    def start(self) -> None:
        """Begin a round."""
        self._send("go")

    def finish(self) -> Round:
        """Wait for the end of the round that was begun."""
        answer: Round = self._receive()
        return answer

    def round(self) -> Round:
        """Do a round."""
        self.start()
        return self.finish()

    def peak_memory(self) -> float:
        """Return the largest memory that the process has had so far, in MB."""
        self._send("memory")
        return float(self._receive())

    def __enter__(self) -> Child:
        """Return the running child."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; one that waits ends by itself when the pipe closes."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _send(self, word: str) -> None:
        try:
            self._pipe.send(word)
        except BrokenPipeError:
            self._raise_ended()

    def _receive(self) -> Any:
        if not self._pipe.poll(PATIENCE_S):
            raise ChildError(f"no answer within {PATIENCE_S:.0f} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._raise_ended()
        if isinstance(answer, str):
            raise ChildError(answer)
        return answer

    def _raise_ended(self) -> None:
        self._process.join(5)
        raise ChildError(f"ended with exit code {self._process.exitcode}")


def _serve(pipe: Connection, way: Way, cores: tuple[int, ...], warm_up: bool) -> None:
    import torch

    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    try:
        work = way.build(*way.arguments)
        if warm_up:
            _round(work, way.calls)
        pipe.send(None)
        while True:
            pipe.send(_round(work, way.calls) if pipe.recv() == "go" else _peak_memory())
    except EOFError:
        return
    except Exception as error:  # whatever a way does wrong, its row has to say so
        pipe.send(f"{type(error).__name__}: {error}")


def _round(work: Callable[[], Any], calls: int) -> Round:
    seconds, results = [], []
    for _ in range(calls):
        started = time.perf_counter()
        results.append(work())
        seconds.append(time.perf_counter() - started)
    return Round(seconds, results)


def _peak_memory() -> float:
    """Largest resident memory of this process in MB; `getrusage` would hand on the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Contest:
    """What several ways did in turn.

    Attributes:
        rounds: of each way, in the order of the ways.
        peak_memory: of each way, in MB.
    """

    rounds: Sequence[Sequence[Round]]
    peak_memory: Sequence[float]


def contest(ways: Sequence[Way], cores: Sequence[int], n_rounds: int) -> Contest:
    """Let ways take turns on the same cores.

    Raises:
        ChildError: one of them failed.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(Child(way, cores)) for way in ways]
        turns = [[child.round() for child in children] for _ in range(n_rounds)]
        return Contest(list(zip(*turns, strict=True)), [child.peak_memory() for child in children])
