"""The commands: the table of figures, and the curves of what costs how much."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Figure, Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "bench.json"
PICTURE = ROOT / "docs" / "images" / "cost.png"
DATA = ROOT / "data" / "ml1m.npz"
STUDENT = ROOT / "runs" / "student"


@click.group(invoke_without_command=True)
@click.option("--only", multiple=True, help="Name of a benchmark; repeatable.  [default: all]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="How often ways take turns.")
@click.option("--data", type=click.Path(path_type=Path), envvar="GPTREC_DATA", help="MovieLens-1M, prepared.")
@click.option("--student", type=click.Path(path_type=Path), default=STUDENT, help="A student trained on it.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Gets the figures; a .md beside it.")
@click.pass_context
def main(
    context: click.Context, only: tuple[str, ...], rounds: int, data: Path | None, student: Path, out: Path
) -> None:
    """Measure how fast this library is, beside plain ways of doing the same work."""
    if context.invoked_subcommand is not None:
        return
    from benchmarks.rows import Setting
    from benchmarks.suite import SUITE

    unknown = [name for name in only if name not in SUITE]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(SUITE)}", param_hint="--only")
    setting = Setting(
        data=_existing(data or DATA),
        student=_existing(student),
        cores=sorted(os.sched_getaffinity(0)),
        rounds=rounds,
    )
    started = time.monotonic()
    figures: list[Figure] = []
    for name, benchmark in SUITE.items():
        if only and name not in only:
            continue
        click.echo(f"{name} ...", err=True)
        figures += benchmark(setting)
    results = _merge(out, figures)
    _write(out, results)
    _show(out, figures, time.monotonic() - started)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Gets the numbers; a .md beside it.")
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, help="Gets the curves, as a PNG.")
def curves(out: Path, picture: Path) -> None:
    """Measure and draw how cost grows."""
    from benchmarks.curves import draw, measure, table
    from benchmarks.figures import text
    from gptrec_rl.reporting.results import duration

    started = time.monotonic()
    measured = measure(sorted(os.sched_getaffinity(0)))
    draw(measured, picture)
    before = _before(out)
    points = {name: [asdict(point) for point in line] for name, line in measured.items()}
    _write(out, replace(before, curves=points))
    click.echo(text(table(measured)))
    click.echo(f"took {duration(time.monotonic() - started)}; wrote {out} and {picture}")


def _before(out: Path) -> Results:
    """Return what the file holds, as of this machine."""
    from benchmarks.figures import Results, read_results
    from gptrec_rl.reporting.results import machine_description

    return replace(read_results(out) or Results("", {}, {}), machine=machine_description())


def _existing(path: Path) -> Path | None:
    return path.resolve() if path.exists() else None


def _merge(out: Path, figures: Sequence[Figure]) -> Results:
    """Put figures in the place of those with their names."""
    before = _before(out)
    return replace(before, figures={**before.figures, **{figure.name: figure for figure in figures}})


def _write(out: Path, results: Results) -> None:
    from benchmarks import curves
    from benchmarks.figures import markdown, table

    points = {name: [curves.Point(**point) for point in line] for name, line in results.curves.items()}
    parts = [
        "# Benchmark",
        f"On {results.machine}, by `make bench`.",
        markdown(table(list(results.figures.values()), {})),
        *(["How cost grows:", markdown(curves.table(points))] if points else []),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(results.json(), encoding="utf-8")
    out.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _show(out: Path, figures: Sequence[Figure], seconds: float) -> None:
    from benchmarks.figures import last_committed, table, text
    from gptrec_rl.reporting.results import duration

    last = last_committed(out)
    click.echo(text(table(figures, last.figures if last else {})))
    click.echo(f"took {duration(seconds)}; wrote {out}")
