"""Work on a GPU: how much a second, and for how much of the time the GPU waits for the next kernel to be launched."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import work
from benchmarks.accuracy import cosine, sampled
from benchmarks.figures import number
from gptrec_rl.config import PpoConfig, Precision
from gptrec_rl.data import Histories, Split
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.goals import parse_goal
from gptrec_rl.learning.learner import Learner
from gptrec_rl.models.gptrec import GPTRec

Baseline = Literal["value", "group"]
DEVICE = torch.device("cuda")

N_DIFFERENT = 4
"""Batches that take turns, so that shapes vary where they do in a fleet."""
N_WARM_UP, N_TIMED, N_PROFILED, N_ROUNDS = 8, 16, 4, 5
"""Calls before a measurement, in each of its rounds and under the profiler, and rounds."""
LAYOUTS = {"16 x 8": (16, 8), "128 x 1": (128, 1)}


@dataclass(frozen=True)
class Speed:
    """What one way of working did; each figure is of one call.

    Attributes:
        name: the work.
        lists: how many lists a call is about.
        seconds: of each round.
        busy: seconds in which the GPU computed or copied.
        n_kernels: kernels launched.
        n_answers: copies to the host, which waits for each.
    """

    name: str
    lists: int
    seconds: Sequence[float]
    busy: float
    n_kernels: float
    n_answers: float

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds))


@dataclass(frozen=True)
class Agreement:
    """How far the GPU is from a processor in fp32, with the same weights and lists.

    Attributes:
        precision: of the GPU's matrix products.
        ratio: largest |ratio - 1| at equal weights, against the processor's log-probabilities.
        distance: 1 - cosine of the policy's gradient to the processor's.
    """

    precision: Precision
    ratio: float
    distance: float


def measure(data: Path | None) -> list[Speed]:
    """Measure updates with both baselines on histories of 200 items and on random cuts, and generation."""
    split = work.open_data(data)
    n_items, cuts_are = split.catalogue.n_items, "(b)" if data is not None else "(b, made up)"
    speeds = []
    for layout, (n_histories, n_lists) in LAYOUTS.items():
        full = [work.full_histories(n_histories, n_items=n_items, seed=seed) for seed in range(N_DIFFERENT)]
        cuts = [work.cut_histories(split, n_histories, seed) for seed in range(N_DIFFERENT)]
        baselines: tuple[Baseline, ...] = ("group", "value") if n_lists > 1 else ("value",)
        for kind, batches in {"(a)": full, cuts_are: cuts}.items():
            for baseline in baselines:
                name = f"update, {layout} lists {kind}, {baseline} baseline"
                speeds.append(_speed(name, n_histories * n_lists, _updates(batches, n_lists, n_items, baseline)))
            name = f"generation, {layout} lists {kind}"
            speeds.append(_speed(name, n_histories * n_lists, _generations(batches, n_lists, n_items)))
    return speeds


def _updates(batches: Sequence[Histories], n_lists: int, n_items: int, baseline: Baseline) -> Callable[[], object]:
    config = PpoConfig(passes=1, baseline=baseline)
    learner = Learner(work.policy(n_items).to(DEVICE), parse_goal("ndcg=1"), config, "auto")
    rollouts = itertools.cycle([work.rollout(histories, n_lists, n_items) for histories in batches])
    return lambda: learner.update(next(rollouts))


def _generations(batches: Sequence[Histories], n_lists: int, n_items: int) -> Callable[[], object]:
    writer, sampler = Writer(work.policy(n_items).to(DEVICE), "auto"), torch.Generator(DEVICE).manual_seed(0)
    turns = itertools.cycle(batches)
    return lambda: writer.write(next(turns), work.K, n_lists, generator=sampler)


def _speed(name: str, lists: int, call: Callable[[], object]) -> Speed:
    def repeat(n: int) -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(n):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / n

    repeat(N_WARM_UP)
    seconds = [repeat(N_TIMED) for _ in range(N_ROUNDS)]
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        repeat(N_PROFILED)
    events = [event for event in profiled.events() if event.device_type.name == "CUDA"]
    busy = sum(event.time_range.elapsed_us() for event in events) / 1e6
    copies = [event.name for event in events if event.name.startswith("Mem")]
    answers = [copy for copy in copies if "DtoH" in copy]
    n_kernels = len(events) - len(copies)
    return Speed(name, lists, seconds, busy / N_PROFILED, n_kernels / N_PROFILED, len(answers) / N_PROFILED)


def agreements(data: Path | None, student: Path | None) -> tuple[str, list[Agreement]]:
    """Compare what the learner makes of a batch on the GPU and on the processor; also says of which policy."""
    split = work.open_data(data)
    policy, described = work.trained_policy(data, student, split)
    return described, list(_agreements(policy, split))


def _agreements(policy: GPTRec, split: Split) -> Iterator[Agreement]:
    rollout = sampled(policy, work.cut_histories(split, 16), 8, "fp32")
    exact = Learner(policy, parse_goal("ndcg=1"), PpoConfig(passes=1), "fp32")
    exact.update(rollout)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        learner = Learner(policy.to(DEVICE), parse_goal("ndcg=1"), PpoConfig(passes=1), precision)
        stats = learner.update(rollout)
        distance = 1 - cosine(learner.policy.to("cpu").network, exact.policy.network)
        yield Agreement(precision, stats.ratio_error, distance)


def words(policy: str, agreed: Sequence[Agreement]) -> str:
    """Say what was measured with, and how far it is from a processor."""
    differences = "; ".join(
        f"in {each.precision} the largest error of ratios at equal weights is {each.ratio:.1e} and 1 - cosine of the "
        f"policy's gradient {each.distance:.1e}"
        for each in agreed
    )
    return (
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}. Beside a processor in fp32, on 16 x 8 lists of "
        f"random cuts (policy: {policy}), {differences}. Below, a call is of one of {N_DIFFERENT} batches in turn; the "
        "share is that of the time in which the GPU computes or copies: in the rest it waits for the next kernel to be "
        "launched, by one thread of the processor."
    )


def table(speeds: Sequence[Speed]) -> list[list[str]]:
    """Return what was measured, headings first."""
    heads = ["work", "lists/s", "ms", "range", "GPU busy, ms", "share of the time", "kernels", "answers"]
    return [
        heads,
        *(
            [
                speed.name,
                number(speed.lists / speed.median),
                number(1000 * speed.median),
                f"{number(1000 * min(speed.seconds))} to {number(1000 * max(speed.seconds))}",
                number(1000 * speed.busy),
                f"{speed.busy / speed.median:.0%}",
                number(speed.n_kernels),
                number(speed.n_answers),
            ]
            for speed in speeds
        ),
    ]
