"""Options that several commands have, and what they open: one data file makes the same split in every command."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gptrec_rl.data import Split

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

data_option = click.option(
    "--data",
    "data",
    type=FILE,
    required=True,
    envvar="GPTREC_DATA",
    show_envvar=True,
    help="Data file, made by `gptrec-rl data prepare`.",
)
SEED = click.IntRange(0, 2**63 - 1)
"""As `gptrec_rl.config.Seed`."""
k_option = click.option(
    "--k", default=10, show_default=True, type=click.IntRange(1, 2**16), help="Length of the lists."
)
precision_option = click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "bf16", "fp32"]),
    help="Of matrix products; auto: bf16 where the hardware has it, fp32 elsewhere, which is faster there.",
)
strategy_choice = click.Choice(["next-k", "top-k"])


def split_options(command: F) -> F:
    """Add `--validation-users` and `--split-seed`; a model is evaluated with those that it was trained with."""
    for option in (
        click.option(
            "--split-seed", default=42, show_default=True, type=SEED, help="Of the choice of validation users."
        ),
        click.option(
            "--validation-users",
            type=click.IntRange(min=1),
            help="How many users validate.  [default: 512, or a quarter of the users if that is less]",
        ),
    ):
        command = option(command)
    return command


def open_split(data: Path, validation_users: int | None = None, seed: int | None = None) -> Split:
    """Read a data file and split it, as every command does.

    Args:
        data: the data file.
        validation_users: how many users validate; None: as `SplitConfig` has it.
        seed: of the choice of validation users; None: the split's default.

    Raises:
        InputError: the file can't be read, or has too few interactions or users for the split.
    """
    from gptrec_rl.data import Interactions, Split, SplitConfig

    config = SplitConfig(validation_users=validation_users, **({} if seed is None else {"seed": seed}))
    return Split.of(Interactions.load(data), config)


on_existing_option = click.option(
    "--on-existing",
    type=click.Choice(["fail", "resume", "overwrite"]),
    default="fail",
    show_default=True,
    help="What to do with a run folder that is there.",
)


def _no_more_than_cores(context: click.Context, parameter: click.Parameter, threads: int | None) -> int | None:
    """Refuse more threads than cores: they would wait for each other."""
    n_cores = len(os.sched_getaffinity(0))
    if threads is not None and threads > n_cores:
        raise click.BadParameter(
            f"{threads} threads are more than the {n_cores} cores that this process may use; give {n_cores} or fewer"
        )
    return threads


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    callback=_no_more_than_cores,
    help="Numerical threads of this process, at most one a core; left out: one a core.",
)


def use_threads(threads: int | None) -> None:
    """Compute with so many numerical threads; None: one a core."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def let_threads_sleep() -> None:
    """Let threads that have nothing to do sleep rather than take cores from others; before PyTorch is loaded.

    For what asks models for lists. Trainings hand out work so often that they would be a quarter slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def require_table(path: Path, option: str) -> None:
    """Refuse, before any work is done, a file that can't be written as a table.

    Raises:
        InputError: its suffix is neither .csv nor .parquet, or its folder can't be made or written.
    """
    from gptrec_rl.errors import InputError
    from gptrec_rl.reporting.table_files import SUFFIXES

    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {path} has suffix {path.suffix!r}; name it .csv or .parquet")
    require_writable(path, option)


def require_writable(path: Path, option: str) -> None:
    """Refuse, before any work is done, a file that can't be written; makes its folder.

    Raises:
        InputError: names the option and the reason.
    """
    from gptrec_rl.errors import InputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {path} can't be written: {error.strerror}; give another place") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} {path} can't be written there; give another place")


def _readable_report(context: click.Context, parameter: click.Parameter, report: Path | None) -> Path | None:
    """Refuse, before any work is done, a document that can't be written, or isn't text."""
    if report is None:
        return None
    require_writable(report, "--report")
    try:
        if report.exists():
            report.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{report} is no document in UTF-8 ({error}); give another place") from None
    return report


report_option = click.option(
    "--report",
    type=FILE,
    callback=_readable_report,
    help="Markdown document to write command, time and figures into.",
)


def config_options(command: F) -> F:
    """Add `--config FILE` and `--set KEY=VALUE`, the way to every setting; the options of a command are shorthands."""
    for option in (
        click.option(
            "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Any setting, e.g. ppo.clip=0.1; repeatable."
        ),
        click.option("--config", "config_file", type=FILE, help="TOML file of settings."),
    ):
        command = option(command)
    return command


def settings_of(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Turn the options that were given into a table of settings: they win over files, `--set` over them.

    Args:
        options: values by the name of the setting, `fleet.n_generators`; None was not given.
    """
    from gptrec_rl.config_files import nested

    given = {key: value for key, value in options.items() if value is not None}
    return [nested(key, str(value) if isinstance(value, Path) else value) for key, value in given.items()]


def typed_command() -> str:
    """Return the command as it was typed, for documents: the program by its name, and no password of a URL."""
    from gptrec_rl.transport.connection import redact

    return "gptrec-rl " + shlex.join(redact(word) if "://" in word else word for word in sys.argv[1:])
