"""The invariants: none is broken by a sound run, and each one notices what breaks it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.invariants import violations
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import Origin
from gptrec_rl.store.trained_models import STORE
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import EmbeddedRedis

pytestmark = pytest.mark.integration

PREFIX = "gptrec:{run}"
ORIGIN: dict[str, Any] = {"catalogue_hash": "c", "split_hash": "s", "config": {}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as url:
        yield connect(url)


@pytest.fixture
def client(server: redis.Redis) -> redis.Redis:
    """Return a Redis with the ledger of three batches, one of them waiting."""
    server.flushall()
    server.hset(f"{PREFIX}:cache:ledger", mapping={"generated": 3, "waiting": 1, "drawn": 2})
    server.hset(f"{PREFIX}:cache:entries", "1-0", "1 2 3 4 0")
    server.xadd(f"{PREFIX}:cache:batches", {"batch": b""}, id="1-0")
    return server


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the files of a sound run of 20 steps by two optimisers, the second one from step 10 on."""
    store = CheckpointStore(str(tmp_path / STORE))
    for version, (token, step) in enumerate([(1, 0), (1, 10), (2, 10), (2, 20)]):
        store.publish_policy({"a": b"1"}, Origin(token=token, version=version, step=step, **ORIGIN))
    store.save_learner({"a": b"1"}, Origin(token=2, version=3, step=20, **ORIGIN))
    store.mark_best(store.policies()[-1], 0.5)
    ledger = {"cache/generated": 3.0, "cache/waiting": 1.0, "cache/drawn": 2.0}
    write(
        tmp_path,
        "metrics",
        [line("optimiser", token, step, {**ledger, "run/progress": step / 20}) for token, step in PLACES],
    )
    write(
        tmp_path,
        "validations",
        [
            line("validator", 2, step, {"val/reward": 0.3 + step / 100, "val/version": version})
            for version, step in ((0, 0), (3, 20))
        ],
    )
    return tmp_path


PLACES = [(1, 5), (1, 12), (2, 10), (2, 20)]


def line(role: str, token: int, step: int, values: dict[str, float]) -> dict[str, Any]:
    return {"role": role, "id": 0, "token": token, "step": step, "time": 12.5, "values": values}


def write(run_dir: Path, name: str, lines: list[dict[str, Any]]) -> None:
    (run_dir / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


def append(run_dir: Path, name: str, each: dict[str, Any]) -> None:
    with (run_dir / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(each) + "\n")


@pytest.mark.parametrize("is_over", [False, True])
def test_a_sound_run_breaks_none(run_dir: Path, client: redis.Redis, is_over: bool) -> None:
    assert violations(run_dir, client, "run", is_over) == []


def damage(run_dir: Path, _: redis.Redis) -> None:
    (run_dir / STORE / "policies/v00000001-token_1/a").write_bytes(b"2")


def lose_a_manifest(run_dir: Path, _: redis.Redis) -> None:
    (run_dir / STORE / "policies/v00000001-token_1/manifest.json").unlink()


def lose_the_best(run_dir: Path, _: redis.Redis) -> None:
    shutil.rmtree(run_dir / STORE / "policies/v00000003-token_2")


def lose_the_states(run_dir: Path, _: redis.Redis) -> None:
    shutil.rmtree(run_dir / STORE / "learner/step_00000020-token_2")


def publish_late(run_dir: Path, _: redis.Redis) -> None:
    late = run_dir / STORE / "policies/v00000009-token_1"
    shutil.copytree(run_dir / STORE / "policies/v00000001-token_1", late)
    manifest = json.loads((late / "manifest.json").read_text())
    (late / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))


def miscount(_: Path, client: redis.Redis) -> None:
    client.hincrby(f"{PREFIX}:cache:ledger", "generated", 1)


def lose_a_batch(_: Path, client: redis.Redis) -> None:
    client.delete(f"{PREFIX}:cache:batches")


def keep_the_lease(_: Path, client: redis.Redis) -> None:
    client.set(f"{PREFIX}:lease", "somebody")


def go_back(run_dir: Path, _: redis.Redis) -> None:
    append(run_dir, "metrics", line("optimiser", 1, 13, {"run/progress": 1.0}))


def diverge(run_dir: Path, _: redis.Redis) -> None:
    append(run_dir, "metrics", line("optimiser", 2, 20, {"run/progress": 1.0, "loss/policy": float("nan")}))


def score_better(run_dir: Path, _: redis.Redis) -> None:
    append(run_dir, "validations", line("validator", 2, 20, {"val/reward": 0.75, "val/version": 3}))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (damage, "v00000001-token_1/a was altered"),
        (lose_a_manifest, "not all of them their manifests"),
        (lose_the_best, "BEST points to nothing"),
        (lose_the_states, "no learner state"),
        (publish_late, r"v00000009-token_1 \(token 1, step 10\) comes after"),
        (miscount, "the ledger in Redis doesn't add up"),
        (lose_a_batch, "the stream 0 batches"),
        (keep_the_lease, "the lease never ends"),
        (go_back, r"\(1, 13\) comes after that of \(2, 20\)"),
        (diverge, "something is not finite"),
        (score_better, "BEST has 0.5, and a policy had 0.75"),
    ],
)
def test_whatever_breaks_one_is_noticed(
    run_dir: Path, client: redis.Redis, break_it: Callable[[Path, redis.Redis], None], said: str
) -> None:
    break_it(run_dir, client)
    assert re.search(said, "\n".join(violations(run_dir, client, "run", is_over=False)))


def leave_a_hold(run_dir: Path, _: redis.Redis) -> None:
    (run_dir / STORE / "holds").mkdir(exist_ok=True)
    (run_dir / STORE / "holds/validator").touch()


def leave_a_write(run_dir: Path, _: redis.Redis) -> None:
    (run_dir / STORE / ".unfinished-BEST-0123abcd").touch()


def leave_the_lease(_: Path, client: redis.Redis) -> None:
    client.set(f"{PREFIX}:lease", "somebody", px=60_000)


def stop_early(run_dir: Path, _: redis.Redis) -> None:
    append(run_dir, "metrics", line("optimiser", 2, 20, {"run/progress": 0.5}))


def score_another(run_dir: Path, _: redis.Redis) -> None:
    append(run_dir, "validations", line("validator", 2, 20, {"val/reward": 0.4, "val/version": 2}))


def score_lower(score: float) -> Callable[[Path, redis.Redis], None]:
    values = {"val/reward": score, "val/version": 3}
    return lambda run_dir, _: append(run_dir, "validations", line("validator", 2, 20, values))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (leave_a_hold, "holds/validator is left over"),
        (leave_a_write, "unfinished-BEST-0123abcd is left over"),
        (leave_the_lease, "the lease was not given back"),
        (stop_early, "ended at 0.500 of its steps"),
        (score_another, "version 3 was never scored"),
        (score_lower(0.47), "has unlearned: policies scored 0.3000 first, 0.5000 at best, 0.4700 in the end"),
    ],
)
def test_what_is_left_undone_at_the_end_is_noticed(
    run_dir: Path, client: redis.Redis, break_it: Callable[[Path, redis.Redis], None], said: str
) -> None:
    break_it(run_dir, client)
    assert violations(run_dir, client, "run", is_over=False) == []
    assert re.search(said, "\n".join(violations(run_dir, client, "run", is_over=True)))


def test_a_last_score_a_little_below_the_best_is_sound_unless_it_is_below_the_first(
    run_dir: Path, client: redis.Redis
) -> None:
    score_lower(0.49)(run_dir, client)
    assert violations(run_dir, client, "run", is_over=True) == []
    write(run_dir, "validations", [])
    for score in (0.5, 0.49):
        score_lower(score)(run_dir, client)
    assert "has unlearned" in "\n".join(violations(run_dir, client, "run", is_over=True))
