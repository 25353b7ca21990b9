"""Each cause of an end has a code of its own."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gptrec_rl.cli import LazyGroup
from gptrec_rl.errors import DivergedError, InputError, LeaseError, StorageError
from gptrec_rl.stops import Stopped
from gptrec_rl.store.manifest import CheckpointError, DiskFullError, FencedError
from gptrec_rl.transport.connection import RedisRefusedError
from gptrec_rl.transport.lease import LeaseHeldError, LeaseLostError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((kind("why"), 2) for kind in (InputError, CheckpointError, DivergedError, RedisRefusedError)),
        *((kind("why"), 74) for kind in (StorageError, DiskFullError)),
        *((kind("why"), 75) for kind in (LeaseError, LeaseHeldError, LeaseLostError, FencedError)),
        *((Stopped(number), 128 + number) for number in (1, 2, 15)),
        (ZeroDivisionError(), 1),
    ],
)
def test_a_process_ends_with_the_code_of_the_cause(error: BaseException, code: int) -> None:
    def fail() -> None:
        raise error

    group = LazyGroup("group")
    group.get_command = lambda *_: click.Command("fail", callback=fail)  # type: ignore[method-assign]
    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == code
    assert ("Error: why" in result.output) == (code in (2, 74, 75))
