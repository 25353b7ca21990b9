from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli.redis_option import redis_options


@click.command()
@redis_options(required=False)
def show(redis_url: str | None) -> None:
    click.echo(redis_url)


def told(*options: str, **environment: str) -> Result:
    unset = {"GPTREC_REDIS_URL": None, "GPTREC_REDIS_PASSWORD_FILE": None}
    return CliRunner().invoke(show, options, env={**unset, **environment})


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text("s3/cret\n")
    return str(file)


def test_the_password_of_the_file_completes_the_url_in_any_order(password_file: str) -> None:
    complete = "redis://fleet:s3%2Fcret@host:6379/0\n"
    options = ("--redis-url", "redis://fleet@host:6379/0"), ("--redis-password-file", password_file)
    assert told(*options[0], *options[1]).output == complete
    assert told(*options[1], *options[0]).output == complete


def test_both_may_come_from_the_environment(password_file: str) -> None:
    given = {"GPTREC_REDIS_URL": "redis://host", "GPTREC_REDIS_PASSWORD_FILE": password_file}
    assert told(**given).output == "redis://:s3%2Fcret@host\n"


def test_a_password_in_the_url_wins_as_the_children_of_a_supervisor_have_both(password_file: str) -> None:
    assert told("--redis-url", "redis://:own@host", GPTREC_REDIS_PASSWORD_FILE=password_file).output == (
        "redis://:own@host\n"
    )


def test_without_a_url_there_is_nothing_to_complete(password_file: str) -> None:
    assert told("--redis-password-file", password_file).output == "\n"


@pytest.mark.parametrize(("content", "complaint"), [("\n", "is empty; write the password"), (None, "does not exist")])
def test_a_file_without_a_password_is_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    done = told("--redis-url", "redis://host", "--redis-password-file", str(file))
    assert done.exit_code == 2
    assert complaint in done.output
