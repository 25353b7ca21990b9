"""`gptrec-rl data`: prepare a data file from one of the sources, and describe one (the paper's Table 2)."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptrec_rl.cli.options import SEED, report_option, require_writable, typed_command

if TYPE_CHECKING:
    from gptrec_rl.data import Interactions
    from gptrec_rl.data.sources.log import Keep
    from gptrec_rl.data.sources.table import PreparationReport

FILE = click.Path(path_type=Path, dir_okay=False)


def _replaceable(context: click.Context, parameter: click.Parameter, out: Path) -> Path:
    """Refuse, before anything is read, a place that can't be written, or where something else lies."""
    from gptrec_rl.data.interactions import is_data_file

    require_writable(out, "--out")
    if out.exists() and not is_data_file(out):
        raise click.BadParameter(f"{out} exists and is no prepared data file; give another place, or remove it")
    return out


OUT = click.option("--out", type=FILE, required=True, callback=_replaceable, help="Data file to write (.npz).")
DROP_UNGENRED = click.option("--drop-ungenred", is_flag=True, help="Leave out items without genres.")


@click.group()
def data() -> None:
    """Prepare and describe data files."""


@data.group()
def prepare() -> None:
    """Make the data file that all other commands read."""


@prepare.command()
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    help="Folder of the sequence files (interactions.txt, items.csv), or GroupLens' ml-1m.zip.",
)
@click.option("--fetch", type=click.Path(path_type=Path, file_okay=False), help="Folder to download ml-1m.zip into.")
@OUT
def ml1m(path: Path | None, fetch: Path | None, out: Path) -> None:
    """MovieLens-1M, given or fetched from GroupLens."""
    from gptrec_rl.data.sources.ml1m import fetch_zip, read_sequences, read_zip

    if path is not None and fetch is None:
        source = path
    elif fetch is not None and path is None:
        source = fetch_zip(fetch)
    else:
        raise click.UsageError("give either --path (folder or zip) or --fetch (folder to download into)")
    _write(read_sequences(source) if source.is_dir() else read_zip(source), out)


@prepare.command()
@click.option("--reviews", type=FILE, required=True, help="UCSD's steam_reviews.json.gz.")
@click.option("--games", type=FILE, required=True, help="UCSD's steam_games.json.gz.")
@DROP_UNGENRED
@OUT
def steam(reviews: Path, games: Path, drop_ungenred: bool, out: Path) -> None:
    """Steam-2M, from UCSD's two raw files."""
    from gptrec_rl.data.sources.steam import read_raw

    _write(read_raw(reviews, games, drop_ungenred), out)


@prepare.command()
@click.argument("file", type=FILE)
@click.option(
    "--items", type=FILE, help="CSV or Parquet that describes the items: item, title, genres (a|b), further columns."
)
@click.option("--user-column", default="user", show_default=True)
@click.option("--item-column", default="item", show_default=True)
@click.option("--timestamp-column", default="timestamp", show_default=True, help="Numbers or ISO 8601 dates.")
@click.option("--title-column", default="title", show_default=True, help="May be absent.")
@click.option("--genres-column", default="genres", show_default=True, help="Separated by |; may be absent.")
@click.option(
    "--keep",
    type=click.Choice(["first", "last"]),
    default="last",
    show_default=True,
    help="Which of several rows of one user and item to keep.",
)
@click.option("--min-user-interactions", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--min-item-interactions", type=click.IntRange(min=1), default=1, show_default=True)
@DROP_UNGENRED
@OUT
def table(
    file: Path,
    items: Path | None,
    keep: Keep,
    min_user_interactions: int,
    min_item_interactions: int,
    drop_ungenred: bool,
    out: Path,
    **column_names: str,
) -> None:
    """Any log of interactions: CSV or Parquet, which its content says; plain, or packed with gzip or xz.

    Columns beyond the named ones describe the items and are kept for your own goals.
    """
    from gptrec_rl.data.sources.table import Columns, Filters, read_table

    columns = Columns(**{option.removesuffix("_column"): name for option, name in column_names.items()})
    filters = Filters(keep, min_user_interactions, min_item_interactions, drop_ungenred)
    interactions, report = read_table(file, items, columns, filters)
    _write(interactions, out, report)


@prepare.command()
@click.option("--users", default=2000, show_default=True, type=click.IntRange(1, 10**7))
@click.option("--items", default=400, show_default=True, type=click.IntRange(1, 20_000))
@click.option("--mean-length", default=40.0, show_default=True, help="Mean length of a history.")
@click.option("--genres", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, type=SEED)
@OUT
def synthetic(users: int, items: int, mean_length: float, genres: int, seed: int, out: Path) -> None:
    """A made-up world with popular items, taste, and items that follow items."""
    from gptrec_rl.data.sources.synthetic import generate

    _write(generate(users, items, mean_length, genres, seed), out)


@data.command()
@click.option("--data", "path", type=FILE, required=True, envvar="GPTREC_DATA", show_envvar=True, help="Data file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@report_option
def stats(path: Path, as_json: bool, report: Path | None) -> None:
    """Describe a data file: the columns of the paper's Table 2."""
    from gptrec_rl.data import Interactions

    started = time.monotonic()
    interactions = Interactions.load(path)
    click.echo(json.dumps(_facts(interactions)) if as_json else _described(interactions))
    if report is not None:
        from gptrec_rl.reporting.documents import Section, write_section

        notes = [f"```text\n{_described(interactions)}\n```"]
        write_section(report, "Results", Section("Data", typed_command(), time.monotonic() - started, notes=notes))


def _write(interactions: Interactions, out: Path, report: PreparationReport | None = None) -> None:
    interactions.save(out)
    if report is not None:
        click.echo(
            f"read {report.rows:,} rows; dropped {report.repeats_dropped:,} repeats of a user and item, "
            f"{report.users_dropped:,} users and {report.items_dropped:,} items"
        )
    click.echo(_described(interactions))
    click.echo(f"wrote {out}")


def _facts(interactions: Interactions) -> dict[str, Any]:
    from gptrec_rl.data import statistics

    return {"name": interactions.name, **dataclasses.asdict(statistics(interactions)), "hash": interactions.hash}


def _described(interactions: Interactions) -> str:
    from gptrec_rl.data import statistics

    row = statistics(interactions)
    lines = {
        "data": interactions.name,
        "users": f"{row.users:,}",
        "items": f"{row.items:,}",
        "interactions": f"{row.interactions:,}",
        "mean length": f"{row.mean_length:.2f}",
        "median length": f"{row.median_length:g}",
        "sparsity": f"{row.sparsity:.2f}",
        "genres": f"{row.genres}",
        "hash": interactions.hash[:16],
    }
    return "\n".join(f"{name:<14}{value:>18}" for name, value in lines.items())
