"""The arithmetic of the limit: operations and bytes of each stage, against what one core of this machine can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import work
from benchmarks.curves import Size, peak_operations, seconds_of
from gptrec_rl.decoding.masking import chosen_log_probs
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.models.backbone import Branches
from gptrec_rl.models.precision import keep_memory, product_dtype

CHANGED = 2**26
"""Bytes of the tensor whose change measures the memory: more than a core's caches hold."""


@dataclass(frozen=True)
class Stage:
    """What one stage of a batch of 16 x 8 lists (a) needs at least, and what it took.

    Attributes:
        name: the stage.
        operations: floating-point operations of its matrix products that may be in bf16.
        fp32_operations: of those that may not.
        n_bytes: read and written at least, were all else kept in caches.
        seconds: measured.
    """

    name: str
    operations: float
    fp32_operations: float
    n_bytes: float
    seconds: float


@dataclass(frozen=True)
class Peaks:
    """What one core can do: operations per second of large products, and bytes per second of a large change in place.

    A copy would say less: its target is read before it is written.
    """

    products: float
    fp32_products: float
    memory: float

    def limit(self, stage: Stage) -> float:
        """Return the seconds below which a stage can't come."""
        computing = stage.operations / self.products + stage.fp32_operations / self.fp32_products
        return max(computing, stage.n_bytes / self.memory)


def measure() -> tuple[Peaks, list[Stage]]:
    """Measure in this process, which ought to have one core."""
    torch.set_num_threads(1)
    keep_memory()
    large = torch.ones(CHANGED // 4)
    changing = seconds_of(lambda: large.mul_(1.0), repeats=9)
    peaks = Peaks(peak_operations(), peak_operations(torch.float32), 2 * CHANGED / changing)
    return peaks, [*_generation(), *_learning()]


def _generation() -> list[Stage]:
    size, policy = Size(), work.policy()
    writer = Writer(policy, "auto")
    sampler = torch.Generator().manual_seed(0)
    dtype = product_dtype("auto", policy.device, policy.width)
    backbone = policy.backbone(dtype)
    sequences = policy.lay_out(work.full_histories(size.n_histories))
    n_lists, n_steps = size.n_histories * size.n_lists, size.k - 1
    with torch.inference_mode():
        encoded = backbone.encode(sequences)
        items, own = torch.ones(size.n_histories, size.n_lists, dtype=torch.int64), torch.eye(size.n_lists).bool()

        def grow() -> None:
            branches = Branches(backbone, encoded, size.n_lists, size.n_lists * n_steps)
            for place in range(n_steps):
                branches.append(items, policy.positions(place, place + 1), own.repeat(1, place + 1))

        states, taken = torch.randn(n_lists, size.model.width), writer.taken(np.ones((n_lists, size.n_items), bool))
        encoding = seconds_of(lambda: backbone.encode(sequences), repeats=9)
        growing = seconds_of(grow, repeats=9)
        choosing = seconds_of(lambda: writer.choose(states, taken, 1.0, 1, sampler), repeats=9)
    width, length = size.model.width, size.history_length + 1
    weights = 12.0 * width**2 * size.model.n_layers * dtype.itemsize
    kept = 2.0 * size.model.n_layers * size.n_histories * length * width * dtype.itemsize
    head = 4.0 * size.n_items * width
    choices = 4.0 * n_lists * size.n_items
    return [
        Stage("encoding 16 histories", size.history_operations, 0.0, weights + kept, encoding),
        Stage("growing 128 lists by 9 items", size.list_operations, 0.0, n_steps * (weights + kept), growing),
        Stage("choosing 10 x 128 items", 0.0, size.head_operations, size.k * (head + 3 * choices), size.k * choosing),
    ]


def _learning() -> list[Stage]:
    size, policy = Size(), work.policy()
    dtype = product_dtype("auto", policy.device, policy.width)
    rollout = work.rollout(work.full_histories(size.n_histories), size.n_lists)
    sequences = policy.lay_out(rollout.histories, rollout.slates)
    slates = torch.from_numpy(rollout.slates).long()
    may = torch.from_numpy(~rollout.histories.contains(size.n_items))
    states = policy.backbone(dtype).slate_states(sequences).detach().requires_grad_()
    optimiser = torch.optim.AdamW(policy.parameters(), fused=True)

    def with_gradient(run: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        def both() -> None:
            policy.zero_grad()
            run().sum().backward()

        return both

    body = with_gradient(lambda: policy.backbone(dtype).slate_states(sequences))
    head = with_gradient(lambda: chosen_log_probs(states, policy.item_weights, may, slates, dtype=dtype)[0])
    weights = 4.0 * sum(parameter.numel() for parameter in policy.parameters())
    logits = float(slates.numel() * size.n_items)
    stages = [
        Stage("learning: layers", 3 * size.body_operations, 0.0, 3 * weights, seconds_of(body, repeats=5)),
        Stage(
            "learning: logits and softmax",
            2 * size.head_operations,
            size.head_operations,
            (4 + 4 * dtype.itemsize) * logits,
            seconds_of(head, repeats=5),
        ),
    ]
    body()
    return [*stages, Stage("learning: AdamW", 0.0, 0.0, 7 * weights, seconds_of(optimiser.step, repeats=9))]


def table(peaks: Peaks, stages: list[Stage]) -> list[list[str]]:
    """Return the stages, headings first."""
    heads = ["stage, one core", "GFLOP", "MB at least", "ms at least", "ms", "share of the limit"]
    rows = [
        [
            stage.name,
            f"{(stage.operations + stage.fp32_operations) / 1e9:.1f}",
            f"{stage.n_bytes / 1e6:.0f}",
            f"{1000 * peaks.limit(stage):.1f}",
            f"{1000 * stage.seconds:.1f}",
            f"{peaks.limit(stage) / stage.seconds:.0%}",
        ]
        for stage in stages
    ]
    return [heads, *rows]


def words(peaks: Peaks) -> str:
    """Say what the machine can do."""
    return (
        f"One core does {peaks.products / 1e9:,.0f} GFLOP/s in the precision of the products and "
        f"{peaks.fp32_products / 1e9:,.0f} GFLOP/s in fp32 (square products of 2,048), and reads and "
        f"writes {peaks.memory / 1e9:.1f} GB/s when it changes 64 MiB in place."
    )
