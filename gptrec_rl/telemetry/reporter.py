"""What every process of a fleet reports about itself: counts, means, what it waited for, its cores and its memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psutil

from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.stream import MetricRecord, MetricsStream

REPORT_EVERY_S = 5.0
LONGEST_WORK_S = 3600.0
"""What of a process' work takes longer hangs: a batch, a step, the reading and writing of a state."""
BYTES_A_MB = 1e6

logger = logging.getLogger(__name__)


class Reporter:
    """Collects what a process does and appends a record of it to the metrics stream every few seconds.

    Args:
        stream: the run's metrics stream.
        role: generator, optimiser, validator or supervisor.
        index: which of its role, from 0.
        clock: seconds.
        every_s: seconds between two records.
    """

    def __init__(
        self,
        stream: MetricsStream,
        role: str,
        index: int,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = REPORT_EVERY_S,
    ) -> None:
        self._stream = stream
        self._role = role
        self._index = index
        self._clock = clock
        self._every_s = every_s
        self._place: tuple[int, int] | None = None
        self._moved_at = clock()
        self._lock = threading.Lock()
        self._start_again()

    def _start_again(self) -> None:
        self._since = self._clock()
        self._cpu_s = time.process_time()
        self._shares_s: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)
        self._values: dict[str, list[float]] = defaultdict(list)

    def waited(self, seconds: float, what: str, limit: str | None = None) -> None:
        """Note time spent waiting.

        Args:
            seconds: how long.
            what: for what, one of the names ``wait/...``.
            limit: which of the cache's limits was the cause, one of the names ``limit/...``.
        """
        for name in (names.WAIT_SHARE, what, limit):
            if name is not None:
                self._shares_s[name] += seconds

    def count(self, rate: str, n: float) -> None:
        """Note n more of what is reported per second."""
        self._counts[rate] += n

    def observe(self, values: Mapping[str, float]) -> None:
        """Note values whose means are reported."""
        for name, value in values.items():
            self._values[name].append(value)

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Say from a thread that this process works, while what it does within the context takes long.

        That is from its first report on; who has just been started may be silent for longer. It asks `is_due` between
        one work and the next, and one that takes more than `LONGEST_WORK_S` counts as hanging.
        """
        is_over = threading.Event()

        def beat() -> None:
            while not is_over.wait(self._every_s):
                now = self._clock()
                is_needed = now - self._since >= 2 * self._every_s and now - self._moved_at <= LONGEST_WORK_S
                if self._place is None or not is_needed:
                    continue
                try:
                    with self._lock:
                        self._stream.append(MetricRecord(self._role, self._index, *self._place, time.time(), {}))
                except Exception as error:  # of Redis, mostly: what the process does itself tells of it
                    logger.warning("not said to be alive: %s", error)

        threading.Thread(target=beat, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            is_over.set()

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next record."""
        self._moved_at = self._clock()
        return self._clock() - self._since >= self._every_s

    def report(self, token: int, step: int, extra: Mapping[str, float] | None = None) -> None:
        """Append what was noted since the last report, and `extra` as it is."""
        elapsed_s = max(self._clock() - self._since, 1e-9)
        shares = {names.WAIT_SHARE: 0.0, **self._shares_s}
        values = {
            **{name: n / elapsed_s for name, n in self._counts.items()},
            **{name: sum(seen) / len(seen) for name, seen in self._values.items()},
            **{name: min(1.0, seconds / elapsed_s) for name, seconds in shares.items()},
            names.PROCESS_CORES: (time.process_time() - self._cpu_s) / elapsed_s,
            names.PROCESS_MEMORY: psutil.Process().memory_info().rss / BYTES_A_MB,
            **(extra or {}),
        }
        with self._lock:  # the thread's place is never behind that of a record in front of it
            self._place = (token, step)
            self._stream.append(MetricRecord(self._role, self._index, token, step, time.time(), values))
        self._start_again()
