"""The README's Python example runs, and its commands have the options that they are shown with."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gptrec_rl.checkpoint import save_policy
from gptrec_rl.cli import main
from gptrec_rl.config import ModelConfig
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.models.gptrec import GPTRec

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "".join(blocks("sh")).splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.startswith("gptrec-rl ")]


def test_python_example_runs(tmp_path: Path) -> None:
    (example,) = (block for block in blocks("python") if "load_policy" in block)
    assert len([line for line in example.splitlines() if line]) <= 10
    data = generate(n_users=40, n_items=40, mean_length=10)
    data.save(tmp_path / "runs/demo/data.npz")
    policy = GPTRec.create(40, ModelConfig(n_layers=1, n_heads=1, width=8, history_length=5))
    folder = tmp_path / "runs/demo/more-diverse"
    save_policy(folder, policy.to_files(), step=0, catalogue_hash=data.catalogue.hash, split_hash="", config={})
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10


@pytest.mark.parametrize("line", commands())
def test_command_has_the_options_it_is_shown_with(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name}"
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
