"""The README's Python example runs, and its commands have the options that they are shown with."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from gptrec_rl.cli import main
from gptrec_rl.config import ModelConfig
from gptrec_rl.data import Catalogue, Histories
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.goals import compute_rewards
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.trained_models import save_policy

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "".join(blocks("sh")).replace("\\\n", "").splitlines()
    return [line.partition(" #")[0].strip().removeprefix("PYTHONPATH=. ") for line in lines if " " in line]


def test_python_example_runs(tmp_path: Path) -> None:
    (example,) = (block for block in blocks("python") if "gptrec_rl.load" in block)
    assert len([line for line in example.splitlines() if line]) <= 10
    data = generate(n_users=40, n_items=40, mean_length=10)
    data.save(tmp_path / "runs/demo/data.npz")
    policy = GPTRec.create(40, ModelConfig(n_layers=1, n_heads=1, width=8, history_length=5))
    folder = tmp_path / "runs/demo/more-diverse"
    save_policy(folder, policy.to_files(), step=0, catalogue_hash=data.catalogue.hash, split_hash="", config={})
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 20
    assert "NDCG@10" in done.stdout


def test_own_metric_is_a_reward() -> None:
    (example,) = (block for block in blocks("python") if "my_rewards" in block)
    names: dict[str, Any] = {}
    exec(example, names)
    ids = np.array(["a", "b", "c"])
    catalogue = Catalogue(ids, ids, ("x", "y"), np.array([[True, False], [False, True], [True, False]]))
    # Item 1 is of x. The list [3, 2] brings y by one of its two items; a new user has had no genre: both bring one.
    lists = np.array([[[3, 2]], [[3, 2]]])
    rewards = compute_rewards({"own": names["new_genres"]}, lists, np.array([2, 2]), Histories.of([[1], []]), catalogue)
    np.testing.assert_array_equal(rewards["own"], [[[0, 0.5]], [[0, 1.0]]])  # on the last place, equation (2)


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("gptrec-rl ")])
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
