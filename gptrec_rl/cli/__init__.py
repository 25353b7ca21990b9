"""The command line `gptrec-rl`: a group whose commands are imported only when they are called.

Each command lives in its own module here and imports torch and the like inside its function, so that help is instant.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from gptrec_rl import __version__
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.stops import exit_code_of, signals_raise

# Name -> where the command lives, and its line in the list of commands.
COMMANDS = {
    "data": ("gptrec_rl.cli.data:data", "Prepare a data set, and describe one."),
    "pretrain": ("gptrec_rl.cli.pretrain:pretrain", "Stage 1: teach a GPTRec the lists of a Markov chain."),
    "train": ("gptrec_rl.cli.train:train", "Train a model to compare with, or to teach a student."),
    "tune": ("gptrec_rl.cli.tune:tune", "Stage 2: align a GPTRec with a goal by a fleet of processes."),
    "evaluate": ("gptrec_rl.cli.evaluate:evaluate", "Score a checkpoint or a recommender on the test users."),
    "recommend": ("gptrec_rl.cli.recommend:recommend", "Recommend items to a user, a history or everyone."),
    "fleet": ("gptrec_rl.cli.fleet:fleet", "Scale, pause, resume or stop a running fleet, and see how it is."),
    "watch": ("gptrec_rl.cli.watch:watch", "Follow a run live."),
    "doctor": ("gptrec_rl.cli.doctor:doctor", "Say what is wrong with a run, and the remedy."),
    "experiment": ("gptrec_rl.cli.experiment:experiment", "Reproduce the paper: its rows, tables and figures."),
    "demo": ("gptrec_rl.cli.demo:demo", "See the whole path on built-in data, in minutes."),
}


class BadInput(click.ClickException):
    """An error that is shown as a plain message, and ends the process with its code."""

    def __init__(self, error: InputError, remedy: str = "") -> None:
        super().__init__(f"{error}{remedy}")
        vars(self)["exit_code"] = error.exit_code


@contextmanager
def plain_errors(remedy: str = "") -> Iterator[None]:
    """Show bad input, and a Redis that can't be used now, as a plain message that ends the process with its code.

    Args:
        remedy: behind the message.
    """
    try:
        yield
    except InputError as error:
        raise BadInput(error, remedy) from error
    except Exception as error:
        redis = sys.modules.get("redis")  # not imported for an error that can't be its
        if redis is None or not isinstance(error, redis.RedisError):
            raise
        raise BadInput(StorageError(f"Redis can't be used now: {error}; try again when it works")) from error


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and shows bad input without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; bad input ends it with exit code 2, a signal with 128 and its number (Ctrl-C: 130)."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what a terminal can't show is no reason to lose what was done
                stream.reconfigure(errors="replace")
        try:
            with signals_raise(), plain_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _stop(ctx, error)


def _stop(ctx: click.Context, error: KeyboardInterrupt) -> NoReturn:
    click.echo("Stopped.", err=True)
    ctx.exit(exit_code_of(error))


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="gptrec-rl")
def main() -> None:
    """Recommenders that write whole lists, aligned with goals beyond accuracy.

    Bring a log of interactions ('data'), teach a student ('pretrain'), align it with your goal ('tune'), and use it
    ('evaluate', 'recommend'). 'demo' shows all of it on built-in data.
    """
