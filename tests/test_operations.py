"""The table of errors in docs/operations.md has every error of a fleet that is shown to people, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    *sorted((ROOT / "gptrec_rl" / "fleet").glob("*.py")),
    *sorted((ROOT / "gptrec_rl" / "transport").glob("*.py")),
    *sorted((ROOT / "services").glob("*.py")),
    *(
        ROOT / "gptrec_rl" / name
        for name in (
            "checkpoint.py",
            "config_files.py",
            "goals.py",
            "learning/learner.py",
            "learning/state.py",
            "cli/tune.py",
            "cli/fleet.py",
            "reporting/folders.py",
        )
    ),
]
SHOWN = {
    "BadParameter",
    "CheckpointError",
    "ChildFailedError",
    "ClickException",
    "DiskFullError",
    "DivergedError",
    "InputError",
    "LeaseHeldError",
    "LeaseLostError",
    "UsageError",
}
GAP = "…"


def text_of(node: ast.expr) -> str:
    """Return a message with a gap for each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return node.value if isinstance(node, ast.Constant) else GAP


def messages(source: str) -> Iterator[str]:
    """Find the messages of all errors of `SHOWN` that are made in a file, and those of errors chosen from several."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            if (name in SHOWN or name == "kind") and text_of(node.args[0]) != GAP:
                yield text_of(node.args[0])


def phrases() -> list[str]:
    """Read the phrases that the tables name."""
    document = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    tables = document.partition("## What each error means")[2].partition("### In logs")[0]
    firsts = re.findall(r"^\| (`.*?`) \|", tables, flags=re.MULTILINE)
    return [phrase for first in firsts for phrase in re.findall(r"`([^`]+)`", first)]


MESSAGES = [message for path in SOURCES for message in messages(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_error_is_explained(message: str) -> None:
    assert any(phrase in message for phrase in phrases()), f"no row of docs/operations.md explains: {message}"


@pytest.mark.parametrize("phrase", phrases())
def test_every_explained_error_exists(phrase: str) -> None:
    assert any(phrase in message for message in MESSAGES), f"no error says: {phrase}"


def test_messages_are_found_with_gaps_for_their_values() -> None:
    source = "def f(x):\n    raise errors.InputError(f'{x} is ' f'wrong' + x)\nprint('no error')"
    assert list(messages(source)) == [f"{GAP} is wrong{GAP}"]
