"""The metrics stream: what every process has to say about itself, for the supervisor's file and the live view."""

from __future__ import annotations

import json
import logging
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import redis

from gptrec_rl.learning.rollout import MAX_NAME_LENGTH
from gptrec_rl.store.manifest import MAX_INT
from gptrec_rl.transport.keys import key
from gptrec_rl.transport.messages import MessageError, pack, unpack

logger = logging.getLogger(__name__)

START = "0"
CAPACITY = 100_000
PAGE_SIZE = 1_000
LONGEST_BLOCK_S = 5.0
MAX_RECORD_BYTES = 2**16

_ROLE = re.compile(r"[a-z]{1,32}")


@dataclass(frozen=True)
class MetricRecord:
    """Some values of one process at one moment.

    Attributes:
        role: ``generator``, ``optimiser``, ``validator`` or ``supervisor``; folders are named after it.
        id: id of the process within the run.
        token: fencing token of the optimiser that the values belong to; for one step the largest token's count.
        step: learner step.
        time: seconds since the epoch.
        values: by the names in `gptrec_rl.telemetry.names`.
    """

    role: str
    id: int
    token: int
    step: int
    time: float
    values: Mapping[str, float]


def encode_record(record: MetricRecord) -> bytes:
    """Turn a record into a message."""
    values = {name: float(value) for name, value in record.values.items()}
    return pack(vars(record) | {"time": float(record.time), "values": values})


def decode_record(data: bytes) -> MetricRecord:
    """Turn a message back into a record.

    Raises:
        MessageError: the message is not as `encode_record` makes it.
    """
    return _checked(unpack(data, at_most=MAX_RECORD_BYTES))


def parse_record(line: bytes) -> MetricRecord:
    """Return the record that a line of `metrics.jsonl` holds.

    Raises:
        MessageError: it holds none.
    """
    if len(line) > MAX_RECORD_BYTES:
        raise MessageError(f"it has {len(line)} bytes; {MAX_RECORD_BYTES} are allowed")
    try:
        return _checked(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise MessageError(str(error)) from None


def _checked(body: object) -> MetricRecord:
    types = {"role": str, "id": int, "token": int, "step": int, "time": float, "values": dict}
    if not isinstance(body, dict) or {name: type(value) for name, value in body.items()} != types:
        raise MessageError(f"metric record is {body!s:.100}; these are its fields: {', '.join(types)}")
    record = MetricRecord(**body)
    if not _ROLE.fullmatch(record.role):
        raise MessageError(f"metric record has the role {record.role!r:.40}, not a plain word")
    if not all(0 <= count <= MAX_INT for count in (record.id, record.token, record.step)):
        raise MessageError("metric record has an id, token or step that is not a whole number from 0")
    if not 0 <= record.time <= MAX_INT:
        raise MessageError(f"metric record is of the time {record.time}")
    for name, value in record.values.items():
        is_number = type(value) is float or (type(value) is int and abs(value) <= MAX_INT)
        if not (isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and is_number):
            raise MessageError(
                f"metric record has the value {name!r:.40}: {value!r:.40}, not a number with a short name"
            )
    return record


class MetricsStream(ABC):
    """The last `CAPACITY` records of a run, in the order in which they came."""

    @abstractmethod
    def append(self, record: MetricRecord) -> None:
        """Add a record."""

    @abstractmethod
    def read(self, after: str = START, block_s: float = 0.0) -> tuple[list[MetricRecord], str]:
        """Return the records after a cursor, up to a page of them, and the cursor to go on from.

        Args:
            after: a cursor that an earlier call returned, or `START`.
            block_s: how long to wait when there is none yet, at most `LONGEST_BLOCK_S`.
        """

    @abstractmethod
    def last(self, n: int) -> list[MetricRecord]:
        """Return the last n records, oldest first."""

    @abstractmethod
    def now(self) -> float:
        """Return the time by the clock that the records' times are of, in seconds since the epoch."""


class MemoryMetrics(MetricsStream):
    """A stream within one process, which has nobody to wait for."""

    def __init__(self) -> None:
        self._records: deque[tuple[int, MetricRecord]] = deque(maxlen=CAPACITY)
        self._places = count(1)

    def append(self, record: MetricRecord) -> None:
        """Add a record."""
        self._records.append((next(self._places), record))

    def read(self, after: str = START, block_s: float = 0.0) -> tuple[list[MetricRecord], str]:
        """Return the next page of records."""
        page = list(islice((entry for entry in self._records if entry[0] > int(after)), PAGE_SIZE))
        return [record for _, record in page], str(page[-1][0]) if page else after

    def last(self, n: int) -> list[MetricRecord]:
        """Return the last n records."""
        return [record for _, record in self._records][-n:]

    def now(self) -> float:
        """Return the time."""
        return time.time()


# KEYS: stream. It is trimmed first: after that Redis carries a script out even if its memory is full.
_APPEND = """
redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
redis.call('XADD', KEYS[1], '*', 'record', ARGV[1])
"""


class RedisMetrics(MetricsStream):
    """A stream among all processes that share a Redis; the time of a record is when it came there, by its clock."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._client = client
        self._stream = key(run_id, "metrics")
        self._append = client.register_script(_APPEND)

    def append(self, record: MetricRecord) -> None:
        """Add a record."""
        self._append(keys=[self._stream], args=[encode_record(record), CAPACITY])

    def read(self, after: str = START, block_s: float = 0.0) -> tuple[list[MetricRecord], str]:
        """Return the next page of records; what is not a record is logged and left out."""
        block_ms = round(min(block_s, LONGEST_BLOCK_S) * 1000) or None  # for Redis 0 means for ever
        replies: Any = self._client.xread({self._stream: after}, count=PAGE_SIZE, block=block_ms)
        entries = replies[0][1] if replies else []
        if not entries and after != START and self._ends_before(after):
            return self.read(START)  # Redis has lost its data, or is another one: what it has is new
        return _records(entries), entries[-1][0].decode() if entries else after

    def _ends_before(self, cursor: str) -> bool:
        newest: Any = self._client.xrevrange(self._stream, count=1)
        return bool(newest) and _place(newest[0][0].decode()) < _place(cursor)

    def last(self, n: int) -> list[MetricRecord]:
        """Return the last n records; what is not a record is logged and left out."""
        newest_first: Any = self._client.xrevrange(self._stream, count=n)
        return _records(newest_first[::-1])

    def now(self) -> float:
        """Return the time by the clock of Redis."""
        seconds, microseconds = self._client.time()
        return int(seconds) + int(microseconds) / 1e6


def _place(cursor: str) -> tuple[int, int]:
    milliseconds, _, number = cursor.partition("-")
    return int(milliseconds), int(number or 0)


def _records(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[MetricRecord]:
    records = []
    for entry_id, values in entries:
        try:
            record = decode_record(values.get(b"record", b""))
            records.append(replace(record, time=int(entry_id.partition(b"-")[0]) / 1000))
        except MessageError as error:
            logger.warning("metric record left out: %s", error)
    return records
