"""What several commands share."""

from __future__ import annotations

import sys

import pytest

from gptrec_rl.cli.options import settings_of, typed_command


def test_a_document_shows_the_command_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/somewhere/gptrec-rl", "tune", "--redis-url", "redis://:secret@host:6379/0", "--goal", "ndcg=1, ild=2"]
    monkeypatch.setattr(sys, "argv", words)
    assert typed_command() == "gptrec-rl tune --redis-url 'redis://:***@host:6379/0' --goal 'ndcg=1, ild=2'"


def test_only_options_that_were_given_are_settings() -> None:
    assert settings_of({"steps": 5, "seed": None, "fleet.n_generators": 0}) == ["steps=5", "fleet.n_generators=0"]
