"""The exporter: the last values of every process on a page for Prometheus, and, where no Supervisor does so, on disk.

`services/exporter.py` runs it; names, units and kinds are those of the metric dictionary.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gptrec_rl.errors import InputError
from gptrec_rl.telemetry.dictionary import Kind, describe
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import Watchdog
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import START, MetricRecord, MetricsStream

FORGET_AFTER_S = 300.0
"""A generator that was silent for so long is no longer shown: another one has another id. Of each other role there is
one, and how long it has been silent is what an alert asks."""

logger = logging.getLogger(__name__)


class FleetPage(Collector):
    """What Prometheus is shown; scraped from other threads than the one that takes records.

    Args:
        forget_after_s: see `FORGET_AFTER_S`.
        clock: seconds since the epoch, as in the records.
    """

    def __init__(self, forget_after_s: float = FORGET_AFTER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_connected = False
        """Whether Redis answered when it was last asked."""
        self._forget_after_s = forget_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, int], MetricRecord] = {}
        self._newest, self._newest_came_at = 0.0, clock()

    def take(self, record: MetricRecord) -> None:
        """Show a record; what its process said before and this one leaves out holds, but for rates."""
        process = record.role, record.id
        with self._lock:
            if record.time >= self._newest:
                self._newest, self._newest_came_at = record.time, self._clock()
            before = self._latest.get(process)
            if before is not None and record.role == "optimiser" and record.token < before.token:
                return  # of one that has lost its lease
            if before is not None and not record.values:  # a sign of life from long work: all values hold
                self._latest[process] = replace(before, time=record.time)
                return
            held = {} if before is None else {n: 0.0 if _kind(n) == "rate" else v for n, v in before.values.items()}
            self._latest[process] = replace(record, values={**held, **record.values})

    def collect(self) -> Iterable[Metric]:
        """Return all families of metrics with their samples."""
        with self._lock:
            now = self._newest + self._clock() - self._newest_came_at  # by the clock of records, which is Redis'
            oldest = now - self._forget_after_s
            self._latest = {
                process: record
                for process, record in self._latest.items()
                if record.role != "generator" or record.time >= oldest
            }
            records = list(self._latest.values())
        families: dict[str, Metric] = {}
        self._add(families, "gptrec_redis_up", "Whether Redis answers.", {}, float(self.is_connected))
        for record in records:
            process = {"role": record.role, "id": str(record.id)}
            self._add(families, "gptrec_step", "Learner step that the values belong to.", process, record.step)
            self._add(families, "gptrec_token", "Fencing token of the optimiser.", process, record.token)
            self._add(families, "gptrec_heard_timestamp_seconds", "Time of the last record.", process, record.time)
            for name, value in record.values.items():
                if found := describe(name):
                    meaning, labels = found.meaning, {**process, **found.labels}
                    self._add(families, meaning.exported, meaning.text, labels, value, meaning.kind)
        return families.values()

    @staticmethod
    def _add(
        families: dict[str, Metric], name: str, text: str, labels: dict[str, str], value: float, kind: Kind = "gauge"
    ) -> None:
        if name not in families:
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            families[name] = family(name, text, labels=list(labels))
        families[name].add_metric(list(labels.values()), value)  # type: ignore[attr-defined]


class Exporter:
    """Follows the metrics stream of a run.

    Args:
        stream: what the processes write.
        page: gets every record from the start of the stream, again after a restart of the exporter.
        records: gets every record once, ever; None where the Supervisor writes them, which also is the watchdog there.
    """

    def __init__(self, stream: MetricsStream, page: FleetPage, records: RunRecords | None = None) -> None:
        self._stream = stream
        self._page = page
        self._records = records
        self._cursor = START
        self._has_room = True
        self._history = RunHistory()
        self._watchdog = Watchdog(self._history)

    def step(self, block_s: float = 0.0) -> bool:
        """Take the next page of the stream, and say whether there was anything.

        A Redis that is away and a disk without room for records are waited for.

        Args:
            block_s: how long to wait when there is nothing yet.
        """
        try:
            has_news = self._show(block_s) | self._keep()
        except redis.RedisError as error:
            if isinstance(error, InputError):  # waiting doesn't help
                raise
            if self._page.is_connected:
                logger.warning("Redis is away (%s); the page stays as it is until it is back", error)
            self._page.is_connected = False
            return False
        self._page.is_connected = True
        return has_news

    def _show(self, block_s: float) -> bool:
        before = self._cursor
        records, self._cursor = self._stream.read(before, block_s)
        for record in records:
            self._page.take(record)
        return self._cursor != before

    def _keep(self) -> bool:
        if self._records is None:
            return False
        records, cursor = self._stream.read(self._records.cursor)
        if cursor == self._records.cursor:
            return False
        try:
            self._records.append(records, cursor)
        except OSError as error:
            if self._has_room:
                logger.warning("records wait in Redis for room on the disk: %s", error)
            self._has_room = False
            return False
        self._has_room = True
        for record in records:
            self._history.add(record)
        self._watchdog.look()
        return True


def _kind(name: str) -> Kind | None:
    found = describe(name)
    return found.meaning.kind if found else None
