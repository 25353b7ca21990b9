"""What holds of a fleet whatever has happened to it, read off its files and its Redis alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import redis

from gptrec_rl.store.checkpoints import BEST, HOLDS, LATEST, LEARNER, POLICIES, CheckpointStore
from gptrec_rl.store.manifest import CheckpointError, Entry
from gptrec_rl.store.trained_models import STORE
from gptrec_rl.telemetry import names

STATES = ("waiting", "drawn", "evicted", "stale", "rejected")
MOST_LOST = 0.02
"""How far the last policy may score below the best one. A fleet that nothing befalls gains 0.07 over some hundred steps
and stays there; from one policy to another its score falls by less than 0.01."""


def violations(run_dir: Path, client: redis.Redis, run_id: str, is_over: bool) -> list[str]:
    """Name what doesn't hold.

    Args:
        run_dir: the run folder of a fleet none of whose processes does anything at the moment.
        client: the Redis of the fleet, itself.
        run_id: names the run there.
        is_over: whether the fleet did all its steps and ended; then nothing may be left of it.
    """
    found = [*_of_checkpoints(run_dir / STORE), *_of_redis(client, run_id), *_of_records(run_dir)]
    if is_over:
        found += [*_of_left_overs(run_dir, client, run_id), *_of_the_end(run_dir)]
    return found


def _of_checkpoints(root: Path) -> Iterator[str]:
    store = CheckpointStore(str(root))
    policies = sorted(store.policies(), key=lambda entry: entry.version)
    for entry in policies + store.learner_states():
        try:
            store.read(entry)
        except CheckpointError as error:
            yield f"a committed checkpoint is not whole: {error}"
    n_committed = sum(not path.name.startswith(".") for kind in (POLICIES, LEARNER) for path in (root / kind).iterdir())
    if n_committed != len(policies) + len(store.learner_states()):
        yield f"{n_committed} checkpoints have their names, and not all of them their manifests"
    if not policies or not store.learner_states():
        yield "there is no policy, or no learner state"
    for before, after in pairwise(policies):
        if after.token < before.token or (after.token == before.token and after.step < before.step):
            yield (
                f"{after.folder} (token {after.token}, step {after.step}) comes after {before.folder} "
                f"(token {before.token}, step {before.step})"
            )
    for pointer in (LATEST, BEST):
        if (root / pointer).exists() and not _is_among(json.loads((root / pointer).read_bytes()), policies):
            yield f"{pointer} points to nothing"


def _is_among(pointer: dict[str, Any], policies: list[Entry]) -> bool:
    return pointer["folder"] in [entry.folder for entry in policies]


def _of_redis(client: redis.Redis, run_id: str) -> Iterator[str]:
    prefix = f"gptrec:{{{run_id}}}"
    with client.pipeline() as pipeline:
        pipeline.hgetall(f"{prefix}:cache:ledger")
        pipeline.hvals(f"{prefix}:cache:entries")
        pipeline.xlen(f"{prefix}:cache:batches")
        pipeline.pttl(f"{prefix}:lease")
        ledger, entries, n_batches, lease_ms = pipeline.execute()
    counts = {column.decode(): int(n) for column, n in ledger.items()}
    if problem := _imbalance(counts):
        yield f"the ledger in Redis {problem}"
    n_waiting = sum(int(entry.split()[-1]) == 0 for entry in entries)
    if n_waiting != counts.get("waiting", 0) or len(entries) != n_batches:
        yield f"the ledger has {counts} and the stream {n_batches} batches, {n_waiting} of them undrawn"
    if lease_ms == -1:
        yield "the lease never ends"


def _imbalance(ledger: dict[str, int]) -> str | None:
    total = sum(ledger.get(state, 0) for state in STATES)
    is_sound = ledger.get("generated", 0) == total and min(ledger.values(), default=0) >= 0
    return None if is_sound else f"doesn't add up: {ledger}"


def _of_records(run_dir: Path) -> Iterator[str]:
    place = (0, 0)
    for record in _lines(run_dir / "metrics.jsonl", "optimiser"):
        values, came = record["values"], (record["token"], record["step"])
        if came < place:
            yield f"the optimiser's record of (token, step) {came} comes after that of {place}"
        place = came
        if problem := _imbalance(
            {key[6:]: int(n) for key, n in values.items() if key.removeprefix("cache/") in (*STATES, "generated")}
        ):
            yield f"the ledger at {place} {problem}"
        if not all(map(math.isfinite, values.values())):
            yield f"at {place} something is not finite: {values}"
    scores = [record["values"][names.VAL_REWARD] for record in _lines(run_dir / "validations.jsonl", "validator")]
    best = CheckpointStore(str(run_dir / STORE)).best()
    if scores and (best is None or best[1] < max(scores)):
        yield f"{BEST} has {best and best[1]}, and a policy had {max(scores)}"


def _of_left_overs(run_dir: Path, client: redis.Redis, run_id: str) -> Iterator[str]:
    if client.exists(f"gptrec:{{{run_id}}}:lease"):
        yield "the lease was not given back"
    for path in (run_dir / STORE).rglob("*"):
        if path.name.startswith(".") or path.parent.name == HOLDS:
            yield f"{path} is left over"
    for process in psutil.process_iter(["cmdline"]):
        if str(run_dir) in (process.info["cmdline"] or ()):
            yield f"process {process.pid} is left over: {process.info['cmdline']}"


def _of_the_end(run_dir: Path) -> Iterator[str]:
    last = _lines(run_dir / "metrics.jsonl", "optimiser")[-1]
    latest = CheckpointStore(str(run_dir / STORE)).latest_policy()
    validations = _lines(run_dir / "validations.jsonl", "validator")
    if last["values"][names.PROGRESS] != 1.0 or latest is None or latest.step != last["step"]:
        yield f"the run ended at {last['values'][names.PROGRESS]:.3f} of its steps, with {latest} as its last policy"
    elif validations[-1]["values"][names.VAL_VERSION] != latest.version:
        yield f"version {latest.version} was never scored"
    scores = [record["values"][names.VAL_REWARD] for record in validations]
    first, best, end = scores[0], max(scores), scores[-1]
    if end < max(first, best - MOST_LOST):
        yield f"the fleet has unlearned: policies scored {first:.4f} first, {best:.4f} at best, {end:.4f} in the end"


def _lines(path: Path, role: str) -> list[dict[str, Any]]:
    whole_lines = path.read_text(encoding="utf-8").rpartition("\n")[0]
    records = [json.loads(line) for line in whole_lines.splitlines()]
    return [record for record in records if record["role"] == role]
