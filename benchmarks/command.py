"""The commands: the table of figures, and the curves of what costs how much."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.figures import Figure, Results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "bench.json"
OWN = ROOT / "runs"
LOAD = ROOT / "docs" / "results" / "load.json"
GPU = ROOT / "docs" / "results" / "gpu.json"
TITLE = "Performance"
COMMAND = "python -m benchmarks"
F = TypeVar("F", bound="Callable[..., Any]")
DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "cost.png"
DATA = ROOT / "data" / "ml1m.npz"
STUDENT = ROOT / "runs" / "student"


_existing_path = click.Path(exists=True, path_type=Path)
data_option = click.option(
    "--data",
    type=_existing_path,
    envvar="GPTREC_DATA",
    help="MovieLens-1M, prepared.  [default: data/ml1m.npz if there is one]",
)
student_option = click.option(
    "--student", type=_existing_path, help="A student trained on it.  [default: runs/student if there is one]"
)


def _out_option(committed: Path) -> Callable[[F], F]:
    usual, own = committed.relative_to(ROOT), (OWN / committed.name).relative_to(ROOT)
    words = f"Gets the figures, as JSON.  [default: {usual}; {own} if that is another machine's]"
    return click.option("--out", type=click.Path(path_type=Path), help=words)


section_option = click.option(
    "--section",
    type=click.Path(path_type=Path),
    help="Document whose section on this is replaced.  [default: docs/performance.md, or beside another --out]",
)


@click.group(invoke_without_command=True)
@click.option("--only", multiple=True, help="Name of a benchmark; repeatable.  [default: all]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="How often ways take turns.")
@data_option
@student_option
@_out_option(RESULTS)
@section_option
@click.pass_context
def main(
    context: click.Context,
    only: tuple[str, ...],
    rounds: int,
    data: Path | None,
    student: Path | None,
    out: Path | None,
    section: Path | None,
) -> None:
    """Measure how fast this library is, beside plain ways of doing the same work."""
    if context.invoked_subcommand is not None:
        return
    from benchmarks.figures import comparison, last_committed, table
    from benchmarks.rows import Setting
    from benchmarks.suite import SUITE
    from gptrec_rl.reporting.documents import Section, duration, write_section
    from gptrec_rl.reporting.grids import Grid

    unknown = [name for name in only if name not in SUITE]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(SUITE)}", param_hint="--only")
    out = out or _default_out(RESULTS)
    setting = Setting(
        data=_given_or_there(data, DATA),
        student=_given_or_there(student, STUDENT),
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
    seconds = time.monotonic() - started
    before = _before(out)
    results = replace(before, figures={**before.figures, **{figure.name: figure for figure in figures}})
    _write(out, results)
    last = last_committed(out) or last_committed(RESULTS)
    before_them, compared = last.figures if last else {}, comparison(last, results.machine)
    notes = [compared, Grid.of(table(list(results.figures.values()), before_them)).markdown()]
    section = section or _beside(out, DOCUMENT)
    typed = " ".join([COMMAND, *(f"--only {name}" for name in only)])
    write_section(section, TITLE, Section("Against plain ways", typed, seconds, notes=notes))
    click.echo(Grid.of(table(figures, before_them)).text())
    click.echo(f"{compared}\ntook {duration(seconds)}; wrote {out} and {section}")


@main.command()
@_out_option(RESULTS)
@section_option
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="Gets the curves, as a PNG.  [default: docs/images/cost.png, or beside another --out]",
)
def curves(out: Path | None, section: Path | None, picture: Path | None) -> None:
    """Measure and draw how cost grows."""
    from benchmarks.curves import draw, measure, table
    from gptrec_rl.reporting.documents import Section, duration, write_section
    from gptrec_rl.reporting.grids import Grid

    out = out or _default_out(RESULTS)
    section, picture = section or _beside(out, DOCUMENT), picture or _beside(out, PICTURE)
    started = time.monotonic()
    measured = measure(sorted(os.sched_getaffinity(0)))
    draw(measured, picture)
    seconds = time.monotonic() - started
    points = {name: [asdict(point) for point in line] for name, line in measured.items()}
    _write(out, replace(_before(out), curves=points))
    figure = ("Lists per second", os.path.relpath(picture, section.parent))
    write_section(
        section,
        TITLE,
        Section(
            "How cost grows",
            f"{COMMAND} curves",
            seconds,
            notes=[Grid.of(table(measured)).markdown()],
            figures=[figure],
        ),
    )
    click.echo(Grid.of(table(measured)).text())
    click.echo(f"took {duration(seconds)}; wrote {out}, {section} and {picture}")


@main.command()
@_out_option(RESULTS)
@section_option
def stages(out: Path | None, section: Path | None) -> None:
    """Measure how far each stage is from what one core can do."""
    from benchmarks import stages as limits
    from gptrec_rl.reporting.documents import Section, write_section
    from gptrec_rl.reporting.grids import Grid

    out = out or _default_out(RESULTS)
    started = time.monotonic()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    peaks, measured = limits.measure()
    os.sched_setaffinity(0, cores)
    rows, words = limits.table(peaks, measured), limits.words(peaks)
    _write(out, replace(_before(out), stages=[[words], *rows]))
    seconds = time.monotonic() - started
    section = section or _beside(out, DOCUMENT)
    write_section(
        section,
        TITLE,
        Section("How far from the limit", f"{COMMAND} stages", seconds, notes=[words, Grid.of(rows).markdown()]),
    )
    click.echo(f"{words}\n{Grid.of(rows).text()}")


@main.command()
@data_option
@student_option
@_out_option(GPU)
@section_option
def gpu(data: Path | None, student: Path | None, out: Path | None, section: Path | None) -> None:
    """Measure updates and generation on a GPU, and how long it waits for kernels to be launched."""
    import json

    import torch

    from benchmarks import gpu as on_gpu
    from gptrec_rl.reporting.documents import Section, machine_description, write_section
    from gptrec_rl.reporting.grids import Grid

    if not torch.cuda.is_available():
        raise click.ClickException("PyTorch finds no GPU here; this benchmark needs one, and a CUDA build of PyTorch")
    out = out or _default_out(GPU)
    started = time.monotonic()
    policy, agreed = on_gpu.agreements(_given_or_there(data, DATA), _given_or_there(student, STUDENT))
    speeds = on_gpu.measure(_given_or_there(data, DATA))
    seconds = time.monotonic() - started
    facts = {
        "machine": f"{machine_description()}, {torch.cuda.get_device_name()}, PyTorch {torch.__version__}",
        "agreement": [asdict(each) for each in agreed],
        "speeds": [asdict(each) for each in speeds],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=2) + "\n")
    section = section or _beside(out, DOCUMENT)
    rows, notes = on_gpu.table(speeds), on_gpu.words(policy, agreed)
    write_section(
        section, TITLE, Section("On a GPU", f"{COMMAND} gpu", seconds, notes=[notes, Grid.of(rows).markdown()])
    )
    click.echo(f"{notes}\n{Grid.of(rows).text()}\nwrote {out} and {section}")


@main.command()
@click.option("--generators", default=64, show_default=True, type=click.IntRange(min=1), help="Processes that send.")
@click.option("--seconds", default=300.0, show_default=True, type=click.FloatRange(min=1), help="At each of two paces.")
@click.option("--cache-batches", default=64, show_default=True, type=click.IntRange(min=1), help="M of the cache.")
@data_option
@click.option("--redis-url", help="Left out: an embedded Redis.")
@_out_option(LOAD)
@click.option(
    "--section",
    type=click.Path(path_type=Path),
    help="Gets the table.  [default: docs/results/load.md, or beside --out]",
)
def load(
    generators: int,
    seconds: float,
    cache_batches: int,
    data: Path | None,
    redis_url: str | None,
    out: Path | None,
    section: Path | None,
) -> None:
    """Load Redis as many generators and an optimiser do, without their models; code 1 if a batch gets lost."""
    import json
    import tempfile
    from contextlib import ExitStack

    from benchmarks import load as plane
    from benchmarks.work import open_data
    from gptrec_rl.reporting.documents import Section, machine_description, write_section
    from gptrec_rl.reporting.grids import Grid
    from gptrec_rl.transport.cache import CacheLimits
    from gptrec_rl.transport.embedded import EmbeddedRedis

    out = out or _default_out(LOAD)
    split = open_data(_given_or_there(data, DATA))
    started = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = redis_url or stack.enter_context(EmbeddedRedis(Path(folder)))
        limits = CacheLimits(cache_batches)
        loads = {
            name: plane.run(url, split, n_generators=generators, seconds=seconds, pace_s=pace_s, limits=limits)
            for name, pace_s in plane.PACES.items()
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine_description(), "loads": plane.figures(loads)}, indent=2) + "\n")
    command = f"{COMMAND} load --generators {generators} --seconds {seconds:g} --cache-batches {cache_batches}"
    rows = plane.table(loads)
    notes = [plane.words(generators), Grid.of(rows).markdown()]
    section = section or _beside(out, LOAD.with_suffix(".md"))
    write_section(section, "Load test", Section("The data plane", command, time.monotonic() - started, notes=notes))
    click.echo(f"{Grid.of(rows).text()}\nwrote {out} and {section}")
    if any(each.unaccounted for each in loads.values()):
        raise click.ClickException("batches got lost, or were counted twice; see the ledger above")


def _beside(out: Path, committed: Path) -> Path:
    """Return a committed file, or one beside figures that are put elsewhere, so that these don't replace it."""
    return committed if out.resolve() in (RESULTS, LOAD, GPU) else out.with_suffix(committed.suffix)


def _default_out(committed: Path) -> Path:
    """Return the committed file, unless it holds what another machine did: that isn't replaced unasked."""
    import json

    from gptrec_rl.reporting.documents import machine_description

    if not committed.exists():
        return committed
    machine = json.loads(committed.read_text(encoding="utf-8"))["machine"]
    return committed if machine.startswith(machine_description()) else OWN / committed.name


def _before(out: Path) -> Results:
    """Return what the file holds, if it is of this machine."""
    from benchmarks.figures import Results, read_results
    from gptrec_rl.reporting.documents import machine_description

    machine = machine_description()
    before = read_results(out)
    return before if before is not None and before.machine == machine else Results(machine, {}, {})


def _given_or_there(given: Path | None, usual: Path) -> Path | None:
    """Return what was asked for, else the usual place if there is something."""
    path = given or (usual if usual.exists() else None)
    return path.resolve() if path else None


def _write(out: Path, results: Results) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(results.json(), encoding="utf-8")
