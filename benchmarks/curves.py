"""How cost grows with the histories, the lists, the catalogue, the batch and the processes; with the arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import ways, work
from benchmarks.measure import Child, Way
from gptrec_rl.config import ModelConfig
from gptrec_rl.models.precision import product_dtype

PEAK_SIZE = 2048
ALL_SIZES = 10
"""Learning keeps so many copies of the weights: student, two models, their gradients and moments, and some room."""


@dataclass(frozen=True)
class Size:
    """The work of one point: (a)-like histories, all of the model's length.

    Attributes:
        history_length: n, and the length of every history.
        k: length of the lists.
        n_lists: G.
        n_items: I.
        n_histories: B.
    """

    history_length: int = work.N
    k: int = work.K
    n_lists: int = 8
    n_items: int = work.N_ITEMS
    n_histories: int = 16

    @property
    def model(self) -> ModelConfig:
        """The model that does it."""
        return ModelConfig(history_length=self.history_length, slate_length=self.k)

    @property
    def head_operations(self) -> float:
        """Floating-point operations of all logits, once."""
        return 2.0 * self.model.width * self.n_items * self.k * self.n_lists * self.n_histories

    @property
    def history_operations(self) -> float:
        """Floating-point operations of all layers for the histories.

        A token costs 24 D^2 a layer and 4 D for each token that it sees; the last layer needs keys and values alone.
        """
        width, length = self.model.width, self.history_length + 1
        whole = (self.model.n_layers - 1) * (24.0 * width**2 + 4.0 * width * length / 2)
        return self.n_histories * length * (whole + 4.0 * width**2)

    @property
    def list_operations(self) -> float:
        """The same for the lists behind them."""
        width, length = self.model.width, self.history_length + 1
        n_tokens = self.n_histories * self.n_lists * (self.k - 1)
        return n_tokens * self.model.n_layers * (24.0 * width**2 + 4.0 * width * (length + self.k / 2))

    @property
    def body_operations(self) -> float:
        """Of both, once."""
        return self.history_operations + self.list_operations

    @property
    def generation_operations(self) -> float:
        """Of generating all lists."""
        return self.body_operations + self.head_operations

    @property
    def update_operations(self) -> float:
        """Of one update of policy and value model; a backward pass costs two forward passes."""
        return 6 * self.body_operations + 3 * self.head_operations

    @property
    def bytes_to_learn(self) -> float:
        """Rough need of memory of an update."""
        weights = 4.0 * self.model.width * self.n_items
        logits = 4.0 * self.n_items * self.k * self.n_lists * self.n_histories
        return ALL_SIZES * weights + 4 * logits


@dataclass(frozen=True)
class Point:
    """What was measured at one size; rates in lists per second, shares of the machine's peak in 0..1.

    Attributes:
        x: what grows.
        generation: rate.
        generation_share: of the peak.
        update: rate; None where the update doesn't fit into memory.
        update_share: of the peak.
        head_share: the logits' share of the operations of generating.
    """

    x: int
    generation: float
    generation_share: float
    update: float | None = None
    update_share: float | None = None
    head_share: float | None = None


@dataclass(frozen=True)
class Curve:
    """Sizes that differ in one thing.

    Attributes:
        title: what grows, and what stays.
        sizes: by what grows.
    """

    title: str
    sizes: Mapping[int, Size]


CURVES = {
    "history length": Curve(
        "items of each history (16 x 8 lists)", {n: Size(history_length=n) for n in (50, 100, 200, 400, 700, 1000)}
    ),
    "list length": Curve("K, items of each list (16 x 8 lists)", {k: Size(k=k) for k in (5, 10, 20, 50)}),
    "lists a history": Curve("lists a history, 16 histories", {g: Size(n_lists=g) for g in (1, 2, 4, 8, 16, 32)}),
    "catalogue": Curve(
        "items to choose from (8 x 1 lists)",
        {n: Size(n_items=n, n_histories=8, n_lists=1) for n in (1_000, 10_000, 100_000, 1_000_000)},
    ),
    "batch": Curve("histories a batch, 8 lists each", {b: Size(n_histories=b) for b in (1, 4, 16, 64, 128)}),
}
PROCESSES = "processes"
PROCESSES_TITLE = "generating processes, a core each (16 x 8 lists)"


def measure(cores: Sequence[int]) -> dict[str, list[Point]]:
    """Measure all curves: the sizes on all cores, the processes on one core each."""
    measured = {}
    for name, curve in CURVES.items():
        with Child(Way(points, (curve.sizes,)), cores, warm_up=False) as child:
            measured[name] = child.round().results[0]
    return {**measured, PROCESSES: _processes(cores)}


def points(sizes: Mapping[int, Size]) -> Callable[[], list[Point]]:
    """Measure the points of one curve in this process."""
    peak = peak_operations()
    return lambda: [_point(x, size, peak) for x, size in sizes.items()]


def peak_operations(dtype: torch.dtype | None = None) -> float:
    """Return the floating-point operations per second of a large matrix product, by default in the models' type."""
    dtype = dtype or product_dtype("auto", torch.device("cpu"))
    matrix = torch.ones(PEAK_SIZE, PEAK_SIZE, dtype=dtype)
    return 2.0 * PEAK_SIZE**3 / seconds_of(lambda: matrix @ matrix, repeats=5)


def _point(x: int, size: Size, peak: float) -> Point:
    histories = work.full_histories(size.n_histories, size.history_length, size.n_items)
    n = size.n_histories * size.n_lists
    seconds = seconds_of(ways.generation(histories, size.n_lists, size.n_items, size.model))
    head_share = size.head_operations / size.generation_operations
    generation = n / seconds, size.generation_operations / seconds / peak
    if size.bytes_to_learn > psutil.virtual_memory().available:
        return Point(x, *generation, head_share=head_share)
    rollout = work.rollout(histories, size.n_lists, size.n_items, size.k)
    seconds = seconds_of(ways.update(rollout, size.n_items, size.model))
    return Point(x, *generation, n / seconds, size.update_operations / seconds / peak, head_share)


def seconds_of(run: Callable[[], Any], repeats: int = 2) -> float:
    """Return the time of the fastest of some calls, after one that doesn't count."""
    run()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _processes(cores: Sequence[int]) -> list[Point]:
    size = Size()
    way = Way(ways.generation, (work.full_histories(size.n_histories), size.n_lists), calls=3)
    measured = []
    with Child(Way(peak_of_core), cores[:1], warm_up=False) as child:
        peak = child.round().results[0]
    with ExitStack() as stack:
        children = [stack.enter_context(Child(way, [core])) for core in cores]
        for n in range(1, len(cores) + 1):
            for child in children[:n]:
                child.start()
            turns = [child.finish() for child in children[:n]]
            rate = sum(sum(turn.results) for turn in turns) / max(sum(turn.seconds) for turn in turns)
            operations = rate * size.generation_operations / (size.n_histories * size.n_lists)
            measured.append(Point(n, rate, operations / (n * peak)))
    return measured


def peak_of_core() -> Callable[[], float]:
    """Measure the peak of the cores that this process has."""
    return lambda: peak_operations()


def draw(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Draw each curve in a panel of its own, rates against what grows, as a PNG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from gptrec_rl.reporting.figures import COLOURS, STYLE

    titles = {**{name: curve.title for name, curve in CURVES.items()}, PROCESSES: PROCESSES_TITLE}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 7.2), layout="constrained")
        FigureCanvasAgg(figure)
        for panel, (name, measured) in zip(figure.subplots(2, 3).flat, curves.items(), strict=False):
            learned = [point for point in measured if point.update is not None]
            xs = [point.x for point in measured]
            panel.loglog(xs, [point.generation for point in measured], marker="o", color=COLOURS[0], label="generation")
            if learned:
                rates = [point.update for point in learned]
                panel.loglog([point.x for point in learned], rates, marker="s", color=COLOURS[1], label="update")
            if name == PROCESSES:  # a straight line through 0 is what is hoped for
                panel.set(xscale="linear", yscale="linear", ylim=0)
            panel.set_xticks(xs, [f"{x:,}" for x in xs])
            panel.xaxis.minorticks_off()
            panel.yaxis.set_major_formatter("{x:,.0f}")
            panel.yaxis.set_minor_formatter(_some_minor)
            panel.set_xlabel(titles[name])
            panel.set_ylabel("lists per second")
            panel.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def _some_minor(x: float, _: int) -> str:
    """Label 2 and 5 of each decade: on a logarithmic axis those above would touch."""
    return f"{x:,.0f}" if f"{x:e}"[0] in "25" else ""


def table(curves: Mapping[str, Sequence[Point]]) -> list[list[str]]:
    """Return the numbers behind the picture, headings first."""
    heads = ["what grows", "", "generation, lists/s", "of the peak", "update, lists/s", "of the peak", "logits' share"]
    return [heads, *([name, f"{p.x:,}", *_cells(p)] for name, measured in curves.items() for p in measured)]


def _cells(point: Point) -> list[str]:
    rates = [f"{point.generation:,.0f}", f"{point.generation_share:.1%}"]
    if point.update is None or point.update_share is None:
        rates += ["-", "-"]
    else:
        rates += [f"{point.update:,.1f}", f"{point.update_share:.1%}"]
    return [*rates, "-" if point.head_share is None else f"{point.head_share:.0%}"]
