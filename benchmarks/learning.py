"""How to spend lists: several from one history or one each, value model or group baseline, once or more often.

`run` generates and learns in turn in one process and keeps what the validator says; `draw` compares the runs: reward of
the validation users against lists and against seconds of one core, without those of validating.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch

from gptrec_rl.cli import plain_errors
from gptrec_rl.cli.options import FILE, config_options, data_option, open_split
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import read_config
from gptrec_rl.data import Split
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.fleet.shared import memory_transport
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import keep_memory
from gptrec_rl.reporting.documents import Section, write_section
from gptrec_rl.reporting.figures import COLOURS, STYLE
from gptrec_rl.store.trained_models import load_policy
from gptrec_rl.telemetry import names
from gptrec_rl.transport.cache import CacheLimits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARMS: dict[str, dict[str, Any]] = {
    "16x8-value": {"fleet": {"n_histories": 16, "n_lists": 8}, "ppo": {"baseline": "value"}},
    "16x8-group": {"fleet": {"n_histories": 16, "n_lists": 8}, "ppo": {"baseline": "group"}},
    "128x1-value": {"fleet": {"n_histories": 128, "n_lists": 1}, "ppo": {"baseline": "value"}},
}
PUBLISH_EVERY = 10
"""Learner steps between two published policies."""
N_SMOOTHED = 3
"""Validations in a mean; one alone is as noisy as what policies gain in between."""
REFERENCE_GAIN = 0.9
"""Share of the best arm's gain over the student at which lists and seconds are compared."""
NOTE = (
    "Reward is the goal's mean over the validation users' greedy lists; all runs of a data set start from one student "
    f"and learn from batches of 128 lists, generated with a policy at most {PUBLISH_EVERY} steps old. Each figure is "
    f"from means of {N_SMOOTHED} validations, over the seeds, whose range is in brackets. The reference reward is "
    f"{REFERENCE_GAIN:.0%} of the best arm's gain over the student. Seconds are of one core that generates and learns "
    "in turn; validating isn't counted. Bands in the picture are ranges over the seeds."
)


@dataclass(frozen=True)
class Point:
    """One validation of one run.

    Attributes:
        data: name of the data.
        goal: what was tuned for.
        learning_rate: of the policy.
        arm: `<histories>x<lists>-<baseline>`.
        max_reuse: how often each batch was learned from.
        seed: of the run.
        steps: of the learner so far.
        lists_generated: so far.
        lists_learned: so far, each counted as often as it was learned from.
        generation_s: processor seconds so far.
        learning_s: processor seconds so far.
        generation_wall_s: the same by the clock.
        learning_wall_s: the same by the clock.
        values: `reward` (the goal's mean), the metrics, and their standard errors as `<metric>/error`.
    """

    data: str
    goal: str
    learning_rate: float
    arm: str
    max_reuse: int
    seed: int
    steps: int
    lists_generated: int
    lists_learned: int
    generation_s: float
    learning_s: float
    generation_wall_s: float
    learning_wall_s: float
    values: Mapping[str, float]

    @property
    def world(self) -> str:
        """What runs share that compare."""
        return f"{self.data}: {self.goal}, learning rate {self.learning_rate:g}"

    @property
    def seconds(self) -> float:
        """Processor seconds so far."""
        return self.generation_s + self.learning_s


@dataclass
class Stopwatch:
    """Time spent in `running`, in seconds: of the processor and by the clock."""

    processor_s: float = 0.0
    wall_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block."""
        processor_s, wall_s = time.process_time(), time.perf_counter()
        yield
        self.processor_s += time.process_time() - processor_s
        self.wall_s += time.perf_counter() - wall_s


def learn(student: GPTRec, split: Split, config: TuneConfig, n_lists: int, validate_every: int) -> Iterator[Point]:
    """Generate a batch and learn from it `max_reuse` times, in turn; yield scores, the student's first.

    Args:
        student: where the policy starts from.
        split: the data.
        config: of the run; `fleet.max_reuse` has a bound, and `steps` follows from the number of lists.
        n_lists: how many to generate at least: the last interval is completed.
        validate_every: lists generated between two validations, rounded to whole published policies.
    """
    sizes = config.fleet
    assert sizes.max_reuse is not None
    batch = sizes.n_histories * sizes.n_lists
    n_turns = max(1, round(validate_every / (batch * sizes.publish_every))) * sizes.publish_every
    n_validations = math.ceil(n_lists / (batch * n_turns))
    steps = n_validations * n_turns * sizes.max_reuse
    config = config.model_copy(update={"steps": steps, "run_id": secrets.token_hex(8)})
    limits = CacheLimits(sizes.cache_batches, sizes.max_staleness, sizes.max_reuse)
    transport = memory_transport(config.run_id, limits, split.catalogue.hash, split.hash)
    fleet = SerialFleet.of(student, split, config, transport)
    generation, learning = Stopwatch(), Stopwatch()
    fleet.optimiser.start()
    yield _validated(fleet, split, config, generation, learning)
    for _ in range(n_validations):
        for _ in range(n_turns):
            with generation.running():
                fleet.generator.step()
            with learning.running():
                for _ in range(sizes.max_reuse):
                    fleet.optimiser.step()
        yield _validated(fleet, split, config, generation, learning)


def _validated(
    fleet: SerialFleet, split: Split, config: TuneConfig, generation: Stopwatch, learning: Stopwatch
) -> Point:
    """Score the newest policy, which is the learner's."""
    fleet.validator.step()
    record = fleet.transport.metrics.read()[0][-1]
    sizes = config.fleet
    n_lists = sizes.n_histories * sizes.n_lists
    assert sizes.max_reuse is not None
    return Point(
        data=split.interactions.name,
        goal=config.goal,
        learning_rate=config.ppo.policy_learning_rate,
        arm=f"{sizes.n_histories}x{sizes.n_lists}-{config.ppo.baseline}",
        max_reuse=sizes.max_reuse,
        seed=config.seed,
        steps=fleet.optimiser.learner.step,
        lists_generated=fleet.transport.cache.ledger().generated * n_lists,
        lists_learned=fleet.optimiser.learner.step * n_lists,
        generation_s=generation.processor_s,
        learning_s=learning.processor_s,
        generation_wall_s=generation.wall_s,
        learning_wall_s=learning.wall_s,
        values={
            name.removeprefix("val/"): value
            for name, value in record.values.items()
            if name.startswith("val/") and name not in (names.VAL_IS_BEST, names.VAL_SECONDS, names.VAL_VERSION)
        },
    )


@dataclass(frozen=True)
class Curve:
    """The runs of one arm in one world, S seeds with P validations each.

    Attributes:
        arm: see `Point`.
        max_reuse: see `Point`.
        lists: generated, [P].
        seconds: of the processor, mean over the seeds, [P].
        generation_s: the part of it for generating, [P].
        rewards: of the validation users, [S, P].
    """

    arm: str
    max_reuse: int
    lists: np.ndarray
    seconds: np.ndarray
    generation_s: np.ndarray
    rewards: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Sequence[Point]]) -> Curve:
        """Put the seeds of an arm together, as far as all of them got.

        Raises:
            InputError: they were validated after different numbers of lists.
        """
        first, n_points = runs[0][0], min(map(len, runs))

        def column(value: Callable[[Point], float]) -> np.ndarray:  # [S, P]
            return np.array([[value(point) for point in run[:n_points]] for run in runs])

        lists = column(lambda point: point.lists_generated)
        if (lists != lists[0]).any():
            raise InputError(
                f"runs of {first.arm} on {first.data} were validated after different numbers of lists; give all seeds "
                "the same --lists and --validate-every"
            )
        seconds = column(lambda point: point.seconds).mean(axis=0)
        generation_s = column(lambda point: point.generation_s).mean(axis=0)
        rewards = column(lambda point: point.values["reward"])
        return cls(first.arm, first.max_reuse, lists[0], seconds, generation_s, rewards)

    @property
    def name(self) -> str:
        """What the arm is called in tables and pictures."""
        sizes, baseline = self.arm.split("-")
        reuse = "" if self.max_reuse == 1 else f", each batch {self.max_reuse} times"
        return f"{sizes.replace('x', ' x ')}, {'value model' if baseline == 'value' else 'group baseline'}{reuse}"

    @property
    def smoothed(self) -> np.ndarray:
        """Means of the last `N_SMOOTHED` validations so far, [S, P]; the first is the student's own score."""
        padded = np.pad(self.rewards, ((0, 0), (N_SMOOTHED - 1, 0)), mode="edge")
        windows: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, N_SMOOTHED, axis=1)
        return windows.mean(axis=-1)


def first_reached(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Return where the line through the points (x, y), both [P], first reaches a level; NaN if it never does."""
    if y.max() < level:
        return math.nan
    place = int(np.argmax(y >= level))
    around = slice(max(place - 1, 0), place + 1)
    return float(np.interp(level, y[around], x[around]))


def read_curves(files: Sequence[Path]) -> dict[str, list[Curve]]:
    """Read what `run` wrote and return the curves by world, in the order of the files.

    Raises:
        InputError: a file is empty or not of `run`.
    """
    runs: dict[str, dict[tuple[str, int], list[list[Point]]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        try:
            points = [Point(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
            first = points[0]
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{file} is not a file of `benchmarks.learning run` ({error}); leave it out") from None
        runs[first.world][first.arm, first.max_reuse].append(points)
    return {world: [Curve.of(seeds) for _, seeds in sorted(arms.items())] for world, arms in runs.items()}


def table(curves: Sequence[Curve]) -> str:
    """Compare the arms in one world, as Markdown."""
    start = float(np.mean([curve.rewards[:, 0].mean() for curve in curves]))
    finals = [float(curve.smoothed[:, -1].mean()) for curve in curves]
    reference = start + REFERENCE_GAIN * (max(finals) - start)
    header = f"| Arm | seeds | lists | final reward | lists until {reference:.4f} | s until then | s per 1,000 lists |"
    lines = [f"{header} of it learning |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for curve, final in zip(curves, finals, strict=True):
        seeds, mean = curve.smoothed[:, -1], curve.smoothed.mean(axis=0)
        spread = f" ({seeds.min():.4f} to {seeds.max():.4f})" if len(seeds) > 1 else ""
        costs = [first_reached(x, mean, reference) for x in (curve.lists, curve.seconds)]
        lists, seconds = ("not reached" if math.isnan(cost) else f"{cost:,.0f}" for cost in costs)
        total, generating = curve.seconds[-1] / curve.lists[-1], curve.generation_s[-1] / curve.lists[-1]
        lines.append(
            f"| {curve.name} | {len(seeds)} | {curve.lists[-1]:,} | {final:.4f}{spread} | {lists} | {seconds} | "
            f"{1000 * total:.2f} | {1000 * (total - generating):.2f} |"
        )
    return "\n".join(lines)


def picture(worlds: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw reward against lists and against seconds, a row for each world: means and ranges over the seeds."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = sorted({curve.arm for curves in worlds.values() for curve in curves})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6 * len(worlds) + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(worlds), 2, squeeze=False, sharey="row")
    axes = {"lists": "lists generated", "seconds": "seconds of one core, generating and learning"}
    for row, (world, curves) in zip(rows, worlds.items(), strict=True):
        row[0].set_ylabel("validation reward")
        for panel, (name, label) in zip(row, axes.items(), strict=True):
            for curve in curves:
                _draw_curve(panel, getattr(curve, name), curve, COLOURS[arms.index(curve.arm) % len(COLOURS)])
            panel.set(title=world, xlabel=label)
            panel.xaxis.set_major_formatter("{x:,.0f}")
    lines = {line.get_label(): line for row in rows for line in row[0].get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_curve(panel: Axes, x: np.ndarray, curve: Curve, colour: str) -> None:
    style = {1: "-", 2: "--"}.get(curve.max_reuse, ":")
    panel.fill_between(x, curve.rewards.min(axis=0), curve.rewards.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    panel.plot(x, curve.rewards.mean(axis=0), style, color=colour, label=curve.name)


@click.group()
def main() -> None:
    """Compare ways to spend lists: how many from one history, which baseline, how often to learn from each."""


@main.command()
@data_option
@click.option("--student", type=click.Path(path_type=Path), required=True, help="Policy to start from.")
@click.option("--goal", default="ndcg=1,ild=1", show_default=True, help="Weighted rewards.")
@click.option("--arm", type=click.Choice(list(ARMS)), required=True, help="<histories>x<lists>-<baseline>.")
@click.option("--max-reuse", type=click.IntRange(min=1), default=1, show_default=True, help="Learn so often from each.")
@click.option("--lists", default=60_000, show_default=True, help="How many to generate.")
@click.option("--validate-every", default=2_560, show_default=True, help="Lists between two validations.")
@click.option("--seed", default=0, show_default=True, help="Of all random streams.")
@config_options
@click.option("--out", type=FILE, required=True, help="JSON lines, one a validation; replaced if it is there.")
def run(
    data: Path,
    student: Path,
    goal: str,
    arm: str,
    max_reuse: int,
    lists: int,
    validate_every: int,
    seed: int,
    config_file: Path | None,
    overrides: tuple[str, ...],
    out: Path,
) -> None:
    """Tune by one arm in this process, on one thread; the same seed gives the same policies."""
    keep_memory()
    torch.set_num_threads(1)
    preset = {**ARMS[arm], "goal": goal, "seed": seed}
    settings = [f"fleet.publish_every={PUBLISH_EVERY}", *overrides, f"fleet.max_reuse={max_reuse}"]
    with plain_errors():
        config = read_config(TuneConfig, config_file, settings, preset)
        split = open_split(data, config.split.validation_users, config.split.seed)
        policy = load_policy(student, split.catalogue)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8") as lines:
            for point in learn(policy, split, config, lists, validate_every):
                print(json.dumps(asdict(point)), file=lines, flush=True)
                reward = point.values["reward"]
                click.echo(f"{point.lists_generated:>9,} lists {point.seconds:>7.0f} s  reward {reward:.4f}")


@main.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--png", type=FILE, required=True, help="Picture to draw.")
@click.option("--section", type=FILE, required=True, help="Markdown document to write the comparison into.")
def draw(files: tuple[Path, ...], png: Path, section: Path) -> None:
    """Compare the runs in FILES: a picture, and a section of a document."""
    with plain_errors():
        curves = read_curves(files)
    picture(curves, png)
    tables = [f"{world}:\n\n{table(group)}" for world, group in curves.items()]
    click.echo("\n\n".join(tables))
    folders = " ".join(dict.fromkeys(f"{file.parent}/*.jsonl" for file in files))
    commands = (
        "python -m benchmarks.learning run --data DATA --student STUDENT --arm ARM --seed SEED --out RUN.jsonl\n"
        f"python -m benchmarks.learning draw {folders} --png {png} --section {section}"
    )
    seconds = sum(curve.seconds[-1] * len(curve.rewards) for group in curves.values() for curve in group)
    figures = [("Reward against lists and seconds", os.path.relpath(png, section.parent))]
    result = Section("Several lists from one history", commands, seconds, notes=[NOTE, *tables], figures=figures)
    write_section(section, "Performance", result)


if __name__ == "__main__":
    main()
