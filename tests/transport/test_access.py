"""The ACL user: a whole fleet lives on its rights, and they end at the run's keys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
from click.testing import CliRunner

from gptrec_rl.cli import main
from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.data.sources.synthetic import generate
from gptrec_rl.fleet.shared import redis_transport
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.access import acl_file, user_line
from gptrec_rl.transport.cache import CacheLimits
from gptrec_rl.transport.connection import RedisRefusedError, connect, connect_patiently
from gptrec_rl.transport.embedded import find_server
from gptrec_rl.transport.ids import RedisIds
from gptrec_rl.transport.messages import RolloutBatch
from gptrec_rl.transport.redis_cache import RedisCache

PASSWORD = "correct horse"


@contextmanager
def redis_in(folder: Path) -> Iterator[str]:
    """Run a Redis with the ACL file of the run ``mine`` and an append-only file; yield the user's URL, then kill it."""
    (folder / "users.acl").write_text(acl_file("mine", PASSWORD))
    options = {"port": "0", "unixsocket": folder / "r.sock", "dir": folder, "aclfile": folder / "users.acl"}
    options |= {"appendonly": "yes", "appendfsync": "always"}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    server = subprocess.Popen([find_server(), *arguments], stdout=subprocess.DEVNULL)
    try:
        url = f"unix://fleet:correct%20horse@{folder}/r.sock"
        connect_patiently(url).close()
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.mark.integration
def test_a_fleet_does_all_it_does_with_these_rights(
    url: str, make_policy: Callable[..., GPTRec], tmp_path: Path
) -> None:
    from gptrec_rl.fleet.generator import Generator
    from gptrec_rl.fleet.optimiser import Optimiser
    from gptrec_rl.fleet.validator import Validator

    split = Split.of(generate(n_users=60, n_items=48, mean_length=12), SplitConfig(validation_users=12))
    sizes = {"n_histories": 4, "n_lists": 3, "publish_every": 1, "cache_batches": 2}
    config = TuneConfig.model_validate({"run_id": "mine", "steps": 3, "precision": "fp32", "fleet": sizes})
    limits = CacheLimits(capacity=2)
    transport = redis_transport(url, str(tmp_path), "mine", limits, split.catalogue.hash, split.hash)
    student = make_policy(48, history_length=8, slate_length=4)
    generator, validator = Generator(split, config, transport, None), Validator(split, config, transport)
    optimiser = Optimiser(student, split, config, transport, "holder")
    transport.control.start(1)
    optimiser.start()
    with optimiser.lease_kept():
        while not optimiser.is_done:
            generator.step()
            optimiser.step()
            validator.step()
        transport.lease.extend("holder", 1)
        optimiser.finish()
    generator.report()
    transport.cache.quarantine(7)
    assert transport.cache.quarantined() == {7}
    transport.control.stop()
    assert transport.control.wishes().n_stops == 1
    records, cursor = transport.metrics.read()
    assert {record.role for record in records} == {"generator", "optimiser", "validator"}
    assert transport.metrics.read(cursor, block_s=0.01) == ([], cursor)
    ledger = transport.cache.ledger()
    assert ledger.drawn == 3
    assert ledger.generated == ledger.waiting + ledger.drawn + ledger.evicted + ledger.stale + ledger.rejected
    assert optimiser.learner.step == 3
    assert transport.cache.draw(np.random.default_rng(0)) is None


@pytest.mark.integration
def test_nothing_is_lost_when_redis_reads_its_file_again(
    tmp_path_factory: pytest.TempPathFactory, make_batch: Callable[..., RolloutBatch]
) -> None:
    folder = tmp_path_factory.mktemp("r")
    for n_batches in (1, 2):
        with redis_in(folder) as url:
            client = connect(url)
            cache = RedisCache(client, "mine", CacheLimits(), "c", "s")
            cache.put(make_batch(n_batches, run_id="mine"))
            assert cache.ledger().generated == n_batches
            assert RedisIds(client, "mine").allocate("generator").id == n_batches
            client.close()


@pytest.mark.integration
@pytest.mark.parametrize(
    "command",
    [
        "GET gptrec:{other}:token",
        "SET mine 1",
        "XADD gptrec:{other}:cache:batches * batch x",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "ACL LIST",
        "ACL SETUSER fleet ~*",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "SCRIPT FLUSH",
        "EVAL return{} 0",
        "SHUTDOWN",
        "MONITOR",
        "REPLICAOF 127.0.0.1 6379",
        "PUBLISH channel x",
        "DEBUG SLEEP 0",
        "RENAME gptrec:{mine}:token gptrec:{other}:token",
    ],
)
def test_everything_else_is_refused(url: str, command: str) -> None:
    client = connect(url)
    with pytest.raises(RedisRefusedError):
        client.execute_command(*command.split())
    client.close()


@pytest.mark.integration
def test_a_script_of_ones_own_reaches_no_other_run(url: str) -> None:
    client = connect(url)
    script = client.register_script("return redis.call('SET', KEYS[1], '1')")
    with pytest.raises(redis.RedisError, match=r"(?i)key|permission"):
        script(keys=["gptrec:{other}:token"])
    client.close()


@pytest.mark.integration
def test_nobody_enters_without_the_password(url: str) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(unix_socket_path=url.partition("@")[2]).ping()


@pytest.mark.integration
def test_the_line_that_is_printed_makes_the_user_without_showing_the_password(tmp_path: Path) -> None:
    file, socket = tmp_path / "password", tmp_path / "r.sock"
    file.write_text(f"{PASSWORD}\n")
    command = [sys.executable, "-m", "gptrec_rl", "fleet", "acl", "mine", "--password-file", file]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert line == user_line("mine", PASSWORD) + "\n"
    assert PASSWORD not in line + acl_file("mine", PASSWORD)
    server = subprocess.Popen([find_server(), "--port", "0", "--unixsocket", socket], stdout=subprocess.DEVNULL)
    try:
        admin = connect_patiently(f"unix://{socket}")
        admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        fleet = connect(f"unix://fleet:correct%20horse@{socket}")
        assert RedisIds(fleet, "mine").allocate("generator").id == 1
        with pytest.raises(RedisRefusedError):
            RedisIds(fleet, "other").allocate("generator")
    finally:
        server.kill()
        server.wait()


def test_an_empty_password_file_makes_no_user(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("\n")
    refused = CliRunner().invoke(main, ["fleet", "acl", "mine", "--password-file", str(file)])
    assert refused.exit_code == 2
    assert "is empty; write the password" in refused.output
