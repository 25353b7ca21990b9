"""Options that several commands have, and what they open: one data file makes the same split in every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gptrec_rl.data import Interactions, Split

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
k_option = click.option("--k", default=10, show_default=True, type=click.IntRange(min=1), help="Length of the lists.")
precision_option = click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "bf16", "fp32"]),
    help="Of matrix products; auto: bf16 where the hardware has it.",
)


def split_options(command: F) -> F:
    """Add `--validation-users` and `--split-seed`; a model is evaluated with those that it was trained with."""
    for option in (
        click.option("--split-seed", default=42, show_default=True, help="Seed of the choice of validation users."),
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
        validation_users: how many users validate; None: see `default_validation_users`.
        seed: of the choice of validation users; None: the split's default.

    Raises:
        InputError: the file can't be read, or has too few interactions or users for the split.
    """
    from gptrec_rl.data import Interactions, Split
    from gptrec_rl.data.split import SPLIT_SEED

    interactions = Interactions.load(data)
    n_users = default_validation_users(interactions) if validation_users is None else validation_users
    return Split.leave_one_out(interactions, n_users, SPLIT_SEED if seed is None else seed)


def default_validation_users(interactions: Interactions) -> int:
    """Return 512, or a quarter of the users with 3 or more interactions where that is less."""
    from gptrec_rl.data.split import VALIDATION_USERS

    n_candidates = int((interactions.histories.lengths >= 3).sum())
    return min(VALIDATION_USERS, n_candidates // 4)
