"""Help is instant, and what people get wrong reaches them as a message, not as a traceback."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from gptrec_rl import __version__
from gptrec_rl.cli import COMMANDS, LazyGroup, main
from gptrec_rl.errors import InputError

HEAVY = {"matplotlib", "numpy", "pandas", "redis", "scipy", "torch", "transformers"}

LOADED_BY = """
import sys
from gptrec_rl.cli import main
main(sys.argv[1:], standalone_mode=False)
print(*sys.modules, file=sys.stderr)
"""


def run_group(failing: BaseException) -> Result:
    """Run a group whose one command raises, and return how it ended."""

    @click.group(cls=LazyGroup)
    def group() -> None:
        pass

    @click.command()
    def command() -> None:
        raise failing

    group.get_command = lambda ctx, name: command  # type: ignore[method-assign]
    return CliRunner().invoke(group, ["anything"])


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=lambda names: "".join(names) or "group")
def test_help_loads_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *arguments, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    assert HEAVY.isdisjoint(done.stderr.split())


def test_group_help_lists_every_command():
    output = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in output for name in COMMANDS)


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == f"gptrec-rl, version {__version__}\n"


def test_unknown_command_is_a_usage_error():
    result = CliRunner().invoke(main, ["evaluat"])
    assert result.exit_code == 2
    assert "No such command 'evaluat'" in result.output


def test_bad_input_is_a_plain_message():
    result = run_group(InputError("user 7 isn't known"))
    assert result.exit_code == 2
    assert result.output == "Error: user 7 isn't known\n"


def test_ctrl_c_exits_as_shells_expect():
    result = run_group(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.output == "Stopped.\n"


def test_a_bug_keeps_its_traceback():
    assert isinstance(run_group(ZeroDivisionError()).exception, ZeroDivisionError)
