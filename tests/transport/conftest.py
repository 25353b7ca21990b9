"""One embedded Redis for all tests of the transport, and rollout batches to send through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from gptrec_rl.data import Histories
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import EmbeddedRedis
from gptrec_rl.transport.messages import RolloutBatch


def new_batch(sequence_number: int = 0, **changes: Any) -> RolloutBatch:
    """Return a small batch of run ``run``, catalogue ``c``, split ``s``: B = 3 (one history empty), G = 2, K = 4."""
    rng = np.random.default_rng(sequence_number)
    fields: dict[str, Any] = {
        "run_id": "run",
        "generator_id": 1,
        "sequence_number": sequence_number,
        "token": 1,
        "policy_version": 1,
        "learner_step": 0,
        "temperature": 1.0,
        "created_at": 1.7e9,
        "catalogue_hash": "c",
        "split_hash": "s",
        "histories": Histories.of([[5, 6, 7], [], [9]]),
        "ground_truth": np.array([1, 2, 3], dtype=np.int64),
        "slates": rng.integers(1, 50, (3, 2, 4)).astype(np.int32),
        "log_probs": -rng.random((3, 2, 4), dtype=np.float32),
        "rewards": {"ndcg": rng.random((3, 2, 4), dtype=np.float32)},
    }
    return RolloutBatch(**(fields | changes))


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., RolloutBatch]:
    return new_batch


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(folder) as url:
        yield url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Connect to an empty Redis."""
    connection = connect(redis_url)
    connection.flushall()
    yield connection
    connection.close()
