from __future__ import annotations

import errno
import json
import logging
import os
import urllib.request
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from gptrec_rl.telemetry.exporter import Exporter, FleetPage
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import START, MemoryMetrics, MetricRecord

NOW = 1_000.0
OPTIMISER = {"role": "optimiser", "id": "0"}
GENERATOR = {"role": "generator", "id": "1"}


def record(role: str, values: dict[str, float], index: int = 0, token: int = 1, time: float = NOW) -> MetricRecord:
    return MetricRecord(role, index, token, 7, time, values)


def shown(page: FleetPage) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(page)
    return registry


@pytest.fixture
def page() -> FleetPage:
    return FleetPage(clock=lambda: NOW)


class AwayStream(MemoryMetrics):
    """A stream in a Redis that is away while told so."""

    is_away = False

    def read(self, after: str = START, block_s: float = 0.0) -> tuple[list[MetricRecord], str]:
        if self.is_away:
            raise redis.ConnectionError("Connection refused")
        return super().read(after, block_s)


def test_a_scrape_reads_values_by_role_id_and_what_the_name_holds(page: FleetPage) -> None:
    page.take(record("generator", {"speed/lists_per_s": 120.0, "reward/mine:new": 0.5}, index=1))
    page.take(record("validator", {"val/ndcg@10": 0.25, "val/ndcg@10/error": 0.125}))
    server, thread = start_http_server(0, "127.0.0.1", shown(page))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as reply:
            text = reply.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    samples = {
        (sample.name, *(sample.labels.get(label) for label in ("role", "id", "metric", "k"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["gptrec_speed_lists_per_second", "generator", "1", None, None] == 120
    assert samples["gptrec_reward", "generator", "1", "mine:new", None] == 0.5
    assert samples["gptrec_validation", "validator", "0", "ndcg", "10"] == 0.25
    assert samples["gptrec_validation_error", "validator", "0", "ndcg", "10"] == 0.125
    assert samples["gptrec_step", "generator", "1", None, None] == 7
    assert samples["gptrec_heard_timestamp_seconds", "validator", "0", None, None] == NOW


def test_counts_are_counters_and_all_else_gauges(page: FleetPage) -> None:
    page.take(record("optimiser", {"cache/generated": 12.0, "cache/waiting": 3.0}))
    types = {family.name: family.type for family in page.collect()}
    assert types["gptrec_cache_generated_batches"] == "counter"
    assert types["gptrec_cache_waiting_batches"] == "gauge"
    assert shown(page).get_sample_value("gptrec_cache_generated_batches_total", OPTIMISER) == 12


def test_what_a_record_leaves_out_holds_but_a_speed_is_nought(page: FleetPage) -> None:
    page.take(record("generator", {"speed/lists_per_s": 120.0, "wait/share": 0.25, "reward/ndcg": 0.5}, index=1))
    page.take(record("generator", {"wait/share": 1.0}, index=1))
    registry = shown(page)
    assert registry.get_sample_value("gptrec_speed_lists_per_second", GENERATOR) == 0
    assert registry.get_sample_value("gptrec_wait_ratio", GENERATOR) == 1
    assert registry.get_sample_value("gptrec_reward", {**GENERATOR, "metric": "ndcg"}) == 0.5


def test_a_process_that_was_silent_for_long_is_dropped() -> None:
    page = FleetPage(forget_after_s=60, clock=lambda: NOW + 1e6)  # whose clock is another
    page.take(record("generator", {"wait/share": 0.5}, index=0, time=NOW - 60))
    page.take(record("generator", {"wait/share": 0.5}, index=1, time=NOW - 61))
    page.take(record("optimiser", {}, time=NOW))
    registry = shown(page)
    assert registry.get_sample_value("gptrec_wait_ratio", {"role": "generator", "id": "0"}) == 0.5
    assert registry.get_sample_value("gptrec_wait_ratio", GENERATOR) is None


def test_an_optimiser_that_has_lost_its_lease_is_not_shown(page: FleetPage) -> None:
    page.take(record("optimiser", {"reward/mean": 0.5}, token=2))
    page.take(record("optimiser", {"reward/mean": 0.25}, token=1))
    assert shown(page).get_sample_value("gptrec_reward_mean", OPTIMISER) == 0.5


def test_a_redis_that_goes_away_is_said_so_once_and_nothing_is_missed(
    page: FleetPage, caplog: pytest.LogCaptureFixture
) -> None:
    stream, registry = AwayStream(), shown(page)
    exporter = Exporter(stream, page)
    stream.append(record("optimiser", {"reward/mean": 0.25}))
    assert exporter.step()
    assert not exporter.step()
    assert registry.get_sample_value("gptrec_redis_up") == 1
    stream.is_away = True
    assert [exporter.step(), exporter.step()] == [False, False]
    assert registry.get_sample_value("gptrec_redis_up") == 0
    assert registry.get_sample_value("gptrec_reward_mean", OPTIMISER) == 0.25
    assert len([line for line in caplog.messages if "Redis is away (Connection refused)" in line]) == 1
    assert caplog.records[0].levelno == logging.WARNING
    stream.is_away = False
    stream.append(record("optimiser", {"reward/mean": 0.5}))
    assert exporter.step()
    assert registry.get_sample_value("gptrec_redis_up") == 1
    assert registry.get_sample_value("gptrec_reward_mean", OPTIMISER) == 0.5


def test_an_exporter_that_starts_again_shows_all_and_writes_each_record_once(page: FleetPage, tmp_path: Path) -> None:
    stream = MemoryMetrics()
    stream.append(record("validator", {"val/ndcg@10": 0.25}))
    Exporter(stream, FleetPage(), RunRecords(tmp_path)).step()
    stream.append(record("optimiser", {"reward/mean": 0.5}))
    Exporter(stream, page, RunRecords(tmp_path)).step()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["role"] for line in lines] == ["validator", "optimiser"]
    labels = {"role": "validator", "id": "0", "metric": "ndcg", "k": "10"}
    assert shown(page).get_sample_value("gptrec_validation", labels) == 0.25


def test_without_records_nothing_is_written(page: FleetPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stream = MemoryMetrics()
    stream.append(record("optimiser", {"reward/mean": 0.5}))
    Exporter(stream, page).step()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_waited_for_and_the_page_is_shown_meanwhile(
    page: FleetPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream, records = MemoryMetrics(), RunRecords(tmp_path)
    exporter = Exporter(stream, page, records)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        for reward in (0.25, 0.5):
            stream.append(record("optimiser", {"reward/mean": reward}))
            assert exporter.step()
            assert shown(page).get_sample_value("gptrec_reward_mean", OPTIMISER) == reward
        assert not exporter.step()
    assert len([line for line in caplog.messages if "No space left" in line]) == 1
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert exporter.step()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_silent_optimiser_stays_on_the_page_for_alerts_to_see(page: FleetPage) -> None:
    page.take(record("optimiser", {"run/progress": 0.5}, time=NOW - 1e6))
    registry = shown(page)
    assert registry.get_sample_value("gptrec_heard_timestamp_seconds", OPTIMISER) == NOW - 1e6
    assert registry.get_sample_value("gptrec_run_progress_ratio", OPTIMISER) == 0.5


def test_who_writes_the_records_warns_of_a_standstill_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = MemoryMetrics()
    keeper, viewer = Exporter(stream, FleetPage(), RunRecords(tmp_path)), Exporter(stream, FleetPage())
    for time_s in range(0, 120, 5):
        stream.append(record("optimiser", {"wait/share": 1.0, "wait/batches": 1.0}, time=float(time_s)))
        assert keeper.step()
        assert viewer.step()
    assert caplog.text.count("the optimiser waits for batches; no generator has said anything") == 1


def test_a_sign_of_life_leaves_all_values(page: FleetPage) -> None:
    page.take(record("generator", {"speed/lists_per_s": 120.0}, index=1, time=NOW - 400))
    page.take(record("generator", {}, index=1, time=NOW))
    assert shown(page).get_sample_value("gptrec_speed_lists_per_second", GENERATOR) == 120
