"""What several commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gptrec_rl.cli.options import settings_of, threads_option, typed_command


def test_a_document_shows_the_command_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/somewhere/gptrec-rl", "tune", "--redis-url", "redis://:secret@host:6379/0", "--goal", "ndcg=1, ild=2"]
    monkeypatch.setattr(sys, "argv", words)
    assert typed_command() == "gptrec-rl tune --redis-url 'redis://:***@host:6379/0' --goal 'ndcg=1, ild=2'"


def test_only_options_that_were_given_are_settings() -> None:
    assert settings_of({"steps": 5, "seed": None, "fleet.n_generators": 0, "start": Path("2024-05-01")}) == [
        {"steps": 5},
        {"fleet": {"n_generators": 0}},
        {"start": "2024-05-01"},
    ]


@pytest.mark.parametrize(("threads", "is_refused"), [("3", False), ("4", True)])
def test_more_threads_than_cores_are_refused(threads: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @threads_option
    def command(threads: int | None) -> None:
        click.echo(threads)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5})
    result = CliRunner().invoke(command, ["--threads", threads])
    assert (result.exit_code != 0) == is_refused
    assert ("4 threads are more than the 3 cores" in result.output) == is_refused
