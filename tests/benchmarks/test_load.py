"""The load test: what it counts, and a short run of it over a real Redis."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load import Load, run, table
from gptrec_rl.data import Split
from gptrec_rl.data.sources import synthetic
from gptrec_rl.transport.cache import CacheLimits, Ledger
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import EmbeddedRedis

LOAD = Load(
    n_generators=2,
    seconds=2.0,
    sent=10,
    drawn=6,
    megabytes=0.5,
    put_ms=(1.0, 2.0),
    draw_ms=(1.0, 2.0),
    redis_mb=3.0,
    disk_mb=4.0,
    redis_cpu_s=0.01,
    records=2,
    ledger=Ledger(generated=10, waiting=1, drawn=6, evicted=2, stale=1),
)


@pytest.mark.parametrize(
    ("changes", "unaccounted"),
    [
        ({}, 0),
        ({"sent": 12}, 2),
        ({"drawn": 5}, 1),
        ({"ledger": Ledger(generated=10, waiting=1, drawn=6, evicted=2)}, 1),
    ],
)
def test_a_batch_that_is_in_no_column_or_counted_otherwise_is_unaccounted_for(
    changes: dict[str, object], unaccounted: int
) -> None:
    assert replace(LOAD, **changes).unaccounted == unaccounted


def test_what_redis_carries_follows_from_its_processor_time() -> None:
    # 1 ms a batch of 128 lists: 1,000 batches a second, of generators that make 1,200 / 128 each.
    assert LOAD.redis_carries == pytest.approx(1000 * 128 / 1200)
    assert ["lists sent/s", "640"] in table({"pace": LOAD})


@pytest.mark.integration
def test_a_short_run_accounts_for_every_batch_and_leaves_no_key(tmp_path: Path) -> None:
    split = Split.of(synthetic.generate(n_users=40, n_items=60, mean_length=12.0))
    with EmbeddedRedis(tmp_path) as url:
        found = run(url, split, n_generators=3, seconds=2.0, pace_s=0.0, limits=CacheLimits(4))
        assert list(connect(url).scan_iter()) == []
    assert found.unaccounted == 0
    assert found.drawn > 0
    assert found.redis_mb > 0


def test_clients_import_no_torch() -> None:
    program = "import sys, benchmarks.load_clients; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
