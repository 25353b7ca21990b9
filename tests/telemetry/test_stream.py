"""The metrics stream, both kinds."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from gptrec_rl.telemetry import stream as module
from gptrec_rl.telemetry.names import LAG_VERSIONS, REWARD_NDCG
from gptrec_rl.telemetry.stream import (
    START,
    MemoryMetrics,
    MetricRecord,
    MetricsStream,
    RedisMetrics,
    decode_record,
    encode_record,
    parse_record,
)
from gptrec_rl.transport.messages import MessageError, pack


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def stream(request: pytest.FixtureRequest) -> MetricsStream:
    return MemoryMetrics() if request.param == "memory" else RedisMetrics(request.getfixturevalue("client"), "run")


def record(step: int) -> MetricRecord:
    return MetricRecord("optimiser", 1, token=2, step=step, time=1.5, values={REWARD_NDCG: 0.25, LAG_VERSIONS: 3.0})


def sent(records: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Return the records as they were sent; Redis gives them the time of its own clock."""
    return [replace(record, time=1.5) for record in records]


def test_records_come_back_in_order(stream: MetricsStream) -> None:
    for step in range(3):
        stream.append(record(step))
    records, _ = stream.read()
    assert sent(records) == [record(0), record(1), record(2)]


def test_a_cursor_goes_on_where_it_stopped(stream: MetricsStream) -> None:
    records, cursor = stream.read()
    assert (records, cursor) == ([], START)
    stream.append(record(0))
    records, cursor = stream.read(cursor)
    assert sent(records) == [record(0)]
    assert stream.read(cursor) == ([], cursor)
    stream.append(record(1))
    assert sent(stream.read(cursor)[0]) == [record(1)]


def test_long_streams_are_read_in_pages(stream: MetricsStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 4)
    for step in range(10):
        stream.append(record(step))
    pages, cursor = [], START
    while (page := stream.read(cursor))[0]:
        pages.append([entry.step for entry in page[0]])
        cursor = page[1]
    assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.integration
def test_the_stream_in_redis_is_capped(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 200)
    stream = RedisMetrics(client, "run")
    for step in range(700):
        stream.append(record(step))
    records, _ = stream.read()
    # Redis trims whole nodes of 100 entries.
    assert 200 <= len(records) < 400
    assert sent(records)[-1] == record(699)


@pytest.mark.integration
def test_what_is_not_a_record_is_left_out_and_logged(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    stream = RedisMetrics(client, "run")
    client.xadd("gptrec:{run}:metrics", {"record": b"garbage"})
    stream.append(record(1))
    with caplog.at_level(logging.WARNING):
        records, cursor = stream.read()
    assert sent(records) == [record(1)]
    assert len(caplog.records) == 1
    assert stream.read(cursor) == ([], cursor)


@pytest.mark.integration
def test_reading_waits_no_longer_than_asked(client: redis.Redis) -> None:
    assert RedisMetrics(client, "run").read(block_s=0.05) == ([], START)


@given(st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False) | st.integers(-100, 100), max_size=5))
def test_records_survive_a_round_trip(values: dict[str, float]) -> None:
    original = MetricRecord("generator", 3, 1, 40, 1.7e9, values)
    assert decode_record(encode_record(original)) == original


@pytest.mark.parametrize(
    "changes", [{"role": 1}, {"step": 1.0}, {"id": None}, {"values": []}, {"values": {"a": "b"}}, {"further": 1}]
)
def test_another_shape_of_record_is_refused(changes: dict[str, object]) -> None:
    body = {"role": "generator", "id": 1, "token": 1, "step": 1, "time": 1.0, "values": {}}
    with pytest.raises(MessageError, match="metric record"):
        decode_record(pack(body | changes))


BODY = {"role": "generator", "id": 1, "token": 2, "step": 3, "time": 4.0, "values": {"a": 0.5}}


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "../../home"},
        {"role": ""},
        {"role": "x" * 33},
        {"id": -1},
        {"token": True},
        {"step": 2**53 + 1},
        {"time": -1.0},
        {"time": float("inf")},
        {"time": float("nan")},
        {"values": {"a": "b"}},
        {"values": {"a": 2**60}},
        {"values": {"a" * 129: 1.0}},
        {"values": []},
        {"further": 1},
    ],
)
def test_a_record_that_nobody_writes_is_refused_on_the_wire_and_in_the_file(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError, match="metric record"):
        decode_record(pack(BODY | changes))
    with pytest.raises(MessageError, match="metric record"):
        parse_record(json.dumps(BODY | changes).encode())


def test_a_record_comes_back_from_the_wire_and_from_the_file() -> None:
    expected = MetricRecord(**BODY)  # type: ignore[arg-type]
    assert decode_record(pack(BODY)) == parse_record(json.dumps(BODY).encode()) == expected


def test_records_of_no_sensible_size_or_depth_are_refused() -> None:
    with pytest.raises(MessageError, match="are allowed"):
        decode_record(pack(BODY | {"role": "x" * 2**16}))
    with pytest.raises(MessageError, match="are allowed"):
        parse_record(json.dumps(BODY).encode() + b" " * 2**16)
    with pytest.raises(MessageError, match="recursion"):
        parse_record(b"[" * 60_000)


@pytest.mark.integration
def test_a_record_is_of_the_time_of_redis_whatever_the_clock_of_its_writer(client: redis.Redis) -> None:
    stream = RedisMetrics(client, "run")
    before = stream.now()
    stream.append(MetricRecord("generator", 0, 1, 2, before - 90.0, {}))  # from a machine that is 90 s behind
    (last,) = stream.last(1)
    assert before - 0.001 <= last.time <= stream.now()
    assert stream.read()[0] == [last]


def test_the_last_records_are_had_without_reading_the_others(stream: MetricsStream) -> None:
    assert stream.last(2) == []
    for step in range(5):
        stream.append(record(step))
    assert sent(stream.last(2)) == [record(3), record(4)]
    assert sent(stream.last(9)) == [record(step) for step in range(5)]


@pytest.mark.integration
def test_a_redis_that_has_lost_its_data_is_read_from_the_start(client: redis.Redis) -> None:
    stream = RedisMetrics(client, "run")
    stream.append(record(1))
    ahead = f"{2**52}-0"  # of a server whose clock was ahead, and which is gone
    records, cursor = stream.read(ahead)
    assert [each.step for each in records] == [1]
    assert stream.read(cursor) == ([], cursor)
