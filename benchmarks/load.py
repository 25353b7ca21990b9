"""The load test of the data plane alone: Redis, many generators without models, one optimiser that only draws.

Every batch must be accounted for, and the memory of Redis bounded; the figures say how many generators it carries.
"""

from __future__ import annotations

import multiprocessing
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import redis

from benchmarks import work
from benchmarks.figures import number
from benchmarks.load_clients import Plan, generate, optimise
from gptrec_rl.data import Split
from gptrec_rl.telemetry.stream import START, RedisMetrics
from gptrec_rl.transport.cache import CacheLimits, Ledger
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.messages import encode

N_HISTORIES, N_LISTS = 16, 8
N_BATCHES = 32
"""Different batches that generators send."""
LISTS_PER_S = 1200.0
"""The pace of the generators here; what one makes on a core of its own is a row of `make bench`."""
PACES = {"at the pace of generators": N_HISTORIES * N_LISTS / LISTS_PER_S, "as fast as there is room": 0.0}
SAMPLE_EVERY_S = 0.5


@dataclass(frozen=True)
class Load:
    """What one run of the load test found.

    Attributes:
        n_generators: how many there were.
        seconds: how long it ran.
        sent: batches that generators say they have put.
        drawn: batches that the optimiser says it has drawn.
        megabytes: size of what was sent.
        put_ms: of a put with its encoding, median and 99th percentile.
        draw_ms: of a draw with its decoding, likewise; only those that gave a batch.
        redis_mb: largest memory of Redis.
        disk_mb: largest append-only file.
        redis_cpu_s: processor time of Redis.
        records: metric records read from the stream.
        ledger: at the end.
    """

    n_generators: int
    seconds: float
    sent: int
    drawn: int
    megabytes: float
    put_ms: tuple[float, float]
    draw_ms: tuple[float, float]
    redis_mb: float
    disk_mb: float
    redis_cpu_s: float
    records: int
    ledger: Ledger

    @property
    def unaccounted(self) -> int:
        """Batches that are in no column of the ledger, or whose sender or reader counts otherwise."""
        ledger = self.ledger
        columns = ledger.waiting + ledger.drawn + ledger.evicted + ledger.stale + ledger.rejected
        return abs(self.sent - ledger.generated) + abs(ledger.generated - columns) + abs(self.drawn - ledger.drawn)

    @property
    def redis_carries(self) -> float:
        """How many generators on cores of their own would keep one core busy with Redis."""
        return self.sent / self.redis_cpu_s * N_HISTORIES * N_LISTS / LISTS_PER_S


def run(
    url: str, split: Split, *, n_generators: int, seconds: float, pace_s: float, limits: CacheLimits | None = None
) -> Load:
    """Load a Redis, under keys that go again.

    Args:
        url: of the Redis.
        split: whose histories the batches have.
        n_generators: how many processes send.
        seconds: for how long.
        pace_s: see `Plan`.
        limits: of the cache; None: the defaults.
    """
    plan = Plan(url, secrets.token_hex(8), limits or CacheLimits(), (), seconds, pace_s)
    plan = replace(plan, messages=tuple(_messages(split, plan.run_id)))
    client = connect(url)
    before = _info(client)
    try:
        answers, watched = _run_clients(plan, n_generators, client)
        ledger = plan.cache().ledger()
    finally:
        for key in client.scan_iter(f"gptrec:{{{plan.run_id}}}:*"):
            client.delete(key)
    drawn_s, put_s = answers[0], np.concatenate(answers[1:])
    after = _info(client)
    return Load(
        n_generators=n_generators,
        seconds=seconds,
        sent=len(put_s),
        drawn=len(drawn_s),
        megabytes=len(put_s) * float(np.mean([len(message) for message in plan.messages])) / 1e6,
        put_ms=_percentiles(put_s),
        draw_ms=_percentiles(drawn_s),
        redis_mb=watched.memory_mb,
        disk_mb=watched.disk_mb,
        redis_cpu_s=after["cpu_s"] - before["cpu_s"],
        records=watched.records,
        ledger=ledger,
    )


def table(loads: dict[str, Load]) -> list[list[str]]:
    """Return the lines of the table, headings first: a column for each pace."""
    cells: dict[str, Callable[[Load], str]] = {
        "batches sent": lambda load: f"{load.sent:,}",
        "batches sent/s": lambda load: number(load.sent / load.seconds),
        "batches drawn/s": lambda load: number(load.drawn / load.seconds),
        "lists sent/s": lambda load: number(load.sent * N_HISTORIES * N_LISTS / load.seconds),
        "MB sent/s": lambda load: number(load.megabytes / load.seconds),
        "put, median and p99": lambda load: _of_two(load.put_ms),
        "draw, median and p99": lambda load: _of_two(load.draw_ms),
        "memory of Redis at most": lambda load: f"{number(load.redis_mb)} MB",
        "append-only file at most": lambda load: f"{number(load.disk_mb)} MB",
        "Redis's processor time a batch": lambda load: f"{number(1e3 * load.redis_cpu_s / load.sent)} ms",
        "generators that one core of Redis carries": lambda load: number(load.redis_carries),
        "metric records": lambda load: f"{load.records:,}",
        "waiting, drawn, evicted": lambda load: ", ".join(
            f"{n:,}" for n in (load.ledger.waiting, load.ledger.drawn, load.ledger.evicted)
        ),
        "stale, rejected, repeated": lambda load: ", ".join(
            f"{n:,}" for n in (load.ledger.stale, load.ledger.rejected, load.ledger.repeated)
        ),
        "unaccounted for": lambda load: f"{load.unaccounted:,}",
    }
    return [["", *loads], *([name, *(cell(load) for load in loads.values())] for name, cell in cells.items())]


def words(n_generators: int) -> str:
    """Say what was done."""
    return (
        f"{n_generators} processes put batches of {N_HISTORIES} x {N_LISTS} lists into one Redis, and one draws each "
        f"batch once; nobody samples or learns. The first column keeps to a pace of {LISTS_PER_S:,.0f} lists/s a "
        "generator, the second one to none but the room in the cache. How many of them one core "
        "of Redis carries follows from its processor time."
    )


def figures(loads: dict[str, Load]) -> dict[str, Any]:
    """Return all that was found, for JSON."""
    return {name: {**asdict(load), "unaccounted": load.unaccounted} for name, load in loads.items()}


@dataclass
class _Watched:
    """What was seen of Redis from outside while the clients worked."""

    memory_mb: float = 0.0
    disk_mb: float = 0.0
    records: int = 0


def _run_clients(plan: Plan, n_generators: int, client: redis.Redis) -> tuple[list[np.ndarray], _Watched]:
    """Run all clients; return the answer of the optimiser and those of the generators, and what was seen."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.load_clients"])
    start = context.Barrier(n_generators + 1)
    pipes = [context.Pipe(duplex=False) for _ in range(n_generators + 1)]
    calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(optimise, (plan, start, pipes[0][1]))]
    calls += [(generate, (plan, 1 + index, start, pipe)) for index, (_, pipe) in enumerate(pipes[1:])]
    with ExitStack() as stack:
        for target, arguments in calls:
            process = context.Process(target=target, args=arguments, daemon=True)
            process.start()
            stack.callback(process.join)
        for _, theirs in pipes:
            theirs.close()
        watched = _watch(client, RedisMetrics(client, plan.run_id), [ours for ours, _ in pipes])
        return [ours.recv() for ours, _ in pipes], watched


def _watch(client: redis.Redis, stream: RedisMetrics, pipes: Sequence[Connection]) -> _Watched:
    """Read the metrics stream as a Supervisor does, and look at Redis, until every client has answered."""
    watched, cursor = _Watched(), START
    while not all(pipe.poll() for pipe in pipes):
        time.sleep(SAMPLE_EVERY_S)
        records, cursor = stream.read(cursor)
        now = _info(client)
        watched.records += len(records)
        watched.memory_mb = max(watched.memory_mb, now["memory_mb"])
        watched.disk_mb = max(watched.disk_mb, now["disk_mb"])
    return watched


def _info(client: redis.Redis) -> dict[str, float]:
    found: Any = client.info("all")
    return {
        "memory_mb": found["used_memory"] / 1e6,
        "disk_mb": found.get("aof_current_size", 0) / 1e6,
        "cpu_s": found["used_cpu_user"] + found["used_cpu_sys"],
    }


def _messages(split: Split, run_id: str) -> Sequence[bytes]:
    """Make batches as generators make them for the goal of NDCG and diversity."""
    n_items = split.catalogue.n_items
    batches = (
        work.rollout(work.cut_histories(split, N_HISTORIES, seed), N_LISTS, n_items, seed=seed)
        for seed in range(N_BATCHES)
    )
    return [
        encode(work.batch_of(replace(batch, rewards={**batch.rewards, "ild": batch.rewards["ndcg"]}), run_id, token=1))
        for batch in batches
    ]


def _percentiles(seconds: np.ndarray) -> tuple[float, float]:
    median, high = 1000 * np.percentile(seconds, (50, 99))
    return float(median), float(high)


def _of_two(milliseconds: tuple[float, float]) -> str:
    return f"{number(milliseconds[0])} and {number(milliseconds[1])} ms"
