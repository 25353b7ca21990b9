from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.telemetry.stream import MetricRecord, RedisMetrics
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import find_server

pytestmark = pytest.mark.integration


@contextmanager
def redis_at(socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Redis on a socket that stays the same from one to the next; killed at the end, as in an accident."""
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(socket.parent), "--appendonly", "yes"]
    server = subprocess.Popen([find_server(), *options, "--appendfsync", "always"], stdout=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.05)


def report(url: str, step: int) -> None:
    record = MetricRecord("optimiser", 0, 1, step, time.time(), {"reward/mean": step / 8})
    RedisMetrics(connect(url), "run").append(record)


def answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.RedisError:
        return False


def test_a_page_survives_its_redis_and_all_records_are_on_disk(tmp_path: Path) -> None:
    run_dir, socket, log = tmp_path / "run", tmp_path / "r.sock", tmp_path / "log"
    run_dir.mkdir()
    write_config(TuneConfig(steps=40), run_dir / "config.toml")
    url = f"unix://{socket}"
    command = [sys.executable, "-m", "services.exporter", "--run-dir", run_dir, "--port", "0", "--write-records"]
    page = ""

    def shows(line: str) -> bool:
        with urllib.request.urlopen(page) as reply:
            return line in reply.read().decode().splitlines()

    with redis_at(socket), log.open("wb") as output:
        wait_for(lambda: answers(url))
        report(url, 1)
        exporter = subprocess.Popen(command, stderr=output, env={**os.environ, "GPTREC_REDIS_URL": url})
        try:
            wait_for(lambda: "/metrics" in log.read_text())
            page = re.findall(r"http://\S+/metrics", log.read_text())[0]
            wait_for(lambda: shows('gptrec_reward_mean{id="0",role="optimiser"} 0.125'))
        except BaseException:
            exporter.kill()
            raise
    try:
        wait_for(lambda: shows("gptrec_redis_up 0.0"))
        assert shows('gptrec_reward_mean{id="0",role="optimiser"} 0.125')
        with redis_at(socket):
            wait_for(lambda: answers(url))
            report(url, 2)
            wait_for(lambda: shows('gptrec_reward_mean{id="0",role="optimiser"} 0.25'))
            assert shows("gptrec_redis_up 1.0")
            exporter.send_signal(signal.SIGTERM)
            assert exporter.wait(timeout=300) == 128 + signal.SIGTERM
    finally:
        exporter.kill()
        exporter.wait()
    assert [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_what_is_no_run_ends_with_the_code_for_bad_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.exporter", "--run-dir", tmp_path, "--redis-url", "redis://localhost:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "config.toml" in done.stderr
