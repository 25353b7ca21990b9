"""`gptrec-rl experiment`: rows of the paper's Table 3 and curves of its figures, each from a small file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gptrec_rl.cli.options import FILE, FOLDER, SEED, report_option, threads_option, typed_command, use_threads

if TYPE_CHECKING:
    from gptrec_rl.experiments.study import Study
    from gptrec_rl.experiments.table import Format

F = TypeVar("F", bound=Callable[..., Any])


def study_options(command: F) -> F:
    """Add `--budget`, `--runs` and `--results`: which results are meant, and where they are."""
    runs, results = Path("runs/experiments"), Path("docs/results")
    for option in (
        click.option("--results", type=FOLDER, default=results, show_default=True, help="Folder of results."),
        click.option("--runs", type=FOLDER, default=runs, show_default=True, help="Folder of run folders."),
        click.option("--budget", default="cpu", show_default=True, help="Which of the rows' budgets."),
    ):
        command = option(command)
    return command


set_argument = click.argument("folder", type=FOLDER, metavar="SET")


@click.group()
def experiment() -> None:
    """Reproduce the paper: a SET is a folder such as experiments/ml1m, with one file a row of Table 3."""


@experiment.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="ROW|SET")
@study_options
@click.option("--data", type=FILE, envvar="GPTREC_DATA", show_envvar=True, help="In place of the set's own data file.")
@click.option("--seed", type=SEED, help="One of the row's seeds; left out, all of them.")
@click.option("--with-dependencies", is_flag=True, help="Make what a row builds on too, where it is missing.")
@threads_option
def run(
    path: Path,
    budget: str,
    runs: Path,
    results: Path,
    data: Path | None,
    seed: int | None,
    with_dependencies: bool,
    threads: int | None,
) -> None:
    """Make rows: train or resume, evaluate on all test users, and keep what was measured.

    A ROW is a file such as experiments/ml1m/markov.toml; one that has a result is evaluated anew. Of a SET the rows
    without a result are made, those that others build on first. Ctrl-C loses at most a minute of training; the same
    command goes on.
    """
    from gptrec_rl.experiments.evidence import Evidence
    from gptrec_rl.experiments.notes import changed
    from gptrec_rl.experiments.sets import read_set
    from gptrec_rl.experiments.study import Study
    from gptrec_rl.runs.rows import make_row

    use_threads(threads)
    is_row = path.suffix == ".toml"
    experiments = read_set(path.parent if is_row else path, budget)
    if is_row:
        experiments.row(path.stem, str(path))
    study = Study(experiments, budget, runs, results, data)
    split = study.split()
    if not is_row:
        study.require_split(split)
    jobs = study.jobs(path.stem if is_row else None, seed, with_dependencies)
    study.require_bases(jobs)
    for place, (row_id, own_seed) in enumerate(jobs, start=1):
        click.echo(f"[{place}/{len(jobs)}] {row_id}, seed {own_seed}, budget {budget}")
        result = make_row(study, split, row_id, own_seed)
        click.echo(", ".join(f"{name} {value:.4f}" for name, value in result.own.means.items()))
        click.echo(f"wrote {study.result_file(row_id, own_seed)}")
    if not jobs:
        click.echo(f"every row has a result in {study.folder}")
    if not is_row:
        for note in changed(Evidence.of(study)):
            click.echo(note)


@experiment.command()
@set_argument
@study_options
@click.option(
    "--format",
    "style",
    default="text",
    show_default=True,
    type=click.Choice(["text", "markdown", "latex", "csv"]),
    help="LaTeX and CSV are the table alone.",
)
@report_option
def table(folder: Path, budget: str, runs: Path, results: Path, style: Format, report: Path | None) -> None:
    """Print Table 3 with the published values beside ours, tests of significance, and what the paper doesn't have."""
    from gptrec_rl.experiments.evidence import Evidence
    from gptrec_rl.experiments.table import paper_table
    from gptrec_rl.experiments.text import markdown, text

    evidence = Evidence.of(_study(folder, budget, runs, results))
    if style in ("latex", "csv"):
        click.echo(paper_table(evidence, style).rstrip())
    else:
        click.echo(markdown(evidence) if style == "markdown" else text(evidence))
    if report is not None:
        from gptrec_rl.experiments.text import write_report

        write_report(report, evidence, typed_command())
        click.echo(f"wrote {report}")


@experiment.command()
@set_argument
@study_options
def figures(folder: Path, budget: str, runs: Path, results: Path) -> None:
    """Draw Figures 3 to 5 and the validator's path of each tuning run, into the folder of the results."""
    from gptrec_rl.experiments.evidence import Evidence
    from gptrec_rl.experiments.figures import draw_figures
    from gptrec_rl.experiments.text import FIGURES

    evidence = Evidence.of(_study(folder, budget, runs, results))
    pictures = draw_figures(evidence, evidence.study.folder / FIGURES)
    for title, picture in pictures.items():
        click.echo(f"{title}: {picture}")
    if not pictures:
        click.echo(f"there is nothing to draw yet: no model or curve has a result in {evidence.study.folder}")


@experiment.command()
@set_argument
@study_options
@click.option("--out", type=FILE, help="HTML file to write.  [default: report.html in the folder of the results]")
def report(folder: Path, budget: str, runs: Path, results: Path, out: Path | None) -> None:
    """Write one self-contained HTML file: data, tables, figures, and how each row was made."""
    from gptrec_rl.experiments.evidence import Evidence
    from gptrec_rl.experiments.figures import draw_figures
    from gptrec_rl.experiments.html import write_page
    from gptrec_rl.experiments.text import FIGURES

    evidence = Evidence.of(_study(folder, budget, runs, results))
    pictures = draw_figures(evidence, evidence.study.folder / FIGURES)
    page = out or evidence.study.folder / "report.html"
    write_page(page, evidence, pictures)
    click.echo(f"wrote {page}")


def _study(folder: Path, budget: str, runs: Path, results: Path) -> Study:
    from gptrec_rl.experiments.sets import read_set
    from gptrec_rl.experiments.study import Study

    return Study(read_set(folder, budget), budget, runs, results)
