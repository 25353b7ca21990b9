"""Connecting to Redis: refusals are quick and tell no password, and a restart in mid-run is survived."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.transport.connection import RedisRefusedError, connect, connect_patiently, redact, with_password
from gptrec_rl.transport.embedded import EmbeddedRedis, find_server
from gptrec_rl.transport.ids import RedisIds


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("rediss://user:secret@host", "rediss://user:***@host"),
        ("unix://:secret@/tmp/redis.sock?db=1", "unix://:***@/tmp/redis.sock?db=1"),
        ("unix:///tmp/redis.sock?password=secret&db=1", "unix:///tmp/redis.sock?password=***&db=1"),
        ("redis://:se/c#r?e@t@host", "redis://:***@host"),
        ("redis://user@host", "redis://user@host"),
    ],
)
def test_passwords_are_redacted(url: str, redacted: str) -> None:
    assert redact(url) == redacted


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "unix://:secret@/nowhere/redis.sock"])
def test_a_redis_that_is_not_there_is_named_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match=r"Redis at .*\*\*\*@.* can't be used") as caught:
        connect(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "http://:secret@host", "redis://:se#cret@host:6379", ""])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"is not a Redis URL|can't be used") as caught:
        connect(url)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "password", "complete"),
    [
        ("redis://host:6379/0", "s3cret", "redis://:s3cret@host:6379/0"),
        (
            "rediss://fleet@host/1?ssl_ca_certs=ca.pem",
            "a/b@c:d",
            "rediss://fleet:a%2Fb%40c%3Ad@host/1?ssl_ca_certs=ca.pem",
        ),
        ("unix:///run/redis.sock?db=1", "s3cret", "unix://:s3cret@/run/redis.sock?db=1"),
        ("redis://fleet:own@host", "s3cret", "redis://fleet:own@host"),
        ("unix:///run/redis.sock?password=own", "s3cret", "unix:///run/redis.sock?password=own"),
    ],
)
def test_a_password_is_put_into_the_url_unless_it_has_one(url: str, password: str, complete: str) -> None:
    assert with_password(url, password) == complete
    if complete != url:
        assert redis.connection.parse_url(complete)["password"] == password


@pytest.mark.parametrize(
    "url", ["redis://10.0.0.7:6379/0", "redis://redis", "rediss://fleet@host", "redis://[fe80::1]"]
)
@pytest.mark.parametrize("open_connection", [connect, connect_patiently])
def test_another_machines_redis_needs_a_password(url: str, open_connection: Callable[[str], redis.Redis]) -> None:
    with pytest.raises(InputError, match=r"has no password.*--redis-password-file"):
        open_connection(url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.3.2.1", "[::1]"])
def test_loopback_needs_none(host: str) -> None:
    with pytest.raises(InputError, match="can't be used"):  # nobody listens there
        connect(f"redis://{host}:1")


def test_errors_and_clients_show_no_password() -> None:
    url = with_password("redis://fleet@127.0.0.1:1", "-".join(("correct", "horse")))
    with pytest.raises(InputError) as caught:
        connect(url)
    client = redis.Redis.from_url(url)
    shown = [*traceback.format_exception(caught.value), repr(client), repr(client.connection_pool)]
    assert [text for text in shown if "correct-horse" in text] == []


@pytest.mark.integration
def test_a_wrong_password_is_refused_without_showing_it(redis_url: str) -> None:
    _, at, path = redis_url.partition("@")
    for ask in (connect, connect_patiently):
        with pytest.raises(InputError, match="invalid username-password pair") as caught:
            ask(f"unix://:wrong-secret{at}{path}")
        assert "wrong-secret" not in str(caught.value)


def test_a_server_that_is_no_redis_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(InputError, match=f"Redis at redis://127.0.0.1:{port} can't be used"):
            connect(f"redis://127.0.0.1:{port}")
        thread.join()


@contextmanager
def server_with(*options: str) -> Iterator[str]:
    """Run a Redis of one's own, without data; yield its URL once it answers, then kill it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [find_server(), "--port", str(port), "--save", "", "--dir", folder, *options]
        server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        try:
            admin = redis.Redis(port=port, retry=Retry(ConstantBackoff(0.05), -1))
            admin.ping()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cluster-enabled", "yes"), "node of a Redis Cluster"),
        (("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy to noeviction"),
    ],
)
@pytest.mark.parametrize("open_connection", [connect, connect_patiently])
def test_a_redis_on_which_the_ledger_would_not_hold_is_refused_by_name(
    options: tuple[str, ...], words: str, open_connection: Callable[[str], redis.Redis]
) -> None:
    with server_with(*options) as url, pytest.raises(InputError, match=words):
        open_connection(url)


@pytest.mark.integration
@pytest.mark.parametrize(
    "options",
    [(), ("--maxmemory", "10mb"), ("--maxmemory", "10mb", "--maxmemory-policy", "volatile-lru")],
)
def test_a_redis_that_keeps_what_has_no_expiry_is_taken(options: tuple[str, ...]) -> None:
    with server_with(*options) as url:
        assert connect(url).ping()


@pytest.mark.integration
def test_a_replica_is_refused_by_who_asks_and_waited_for_by_a_fleet() -> None:
    with server_with() as url:
        admin = redis.Redis.from_url(url)
        admin.execute_command("REPLICAOF", "127.0.0.1", "9")
        with pytest.raises(InputError, match="is a replica"):
            connect(url)
        clients: list[redis.Redis] = []
        connector = threading.Thread(target=lambda: clients.append(connect_patiently(url)))
        connector.start()
        admin.execute_command("REPLICAOF", "NO", "ONE")
        connector.join()
        assert clients[0].ping()


@pytest.mark.integration
def test_where_it_may_not_be_asked_a_redis_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with server_with() as url:
        redis.Redis.from_url(url).execute_command("ACL", "SETUSER", "some", "on", ">word", "~*", "+@all", "-info")
        assert connect(url.replace("//", "//some:word@")).ping()
    assert "doesn't tell us (INFO)" in caplog.text


def _fails_over(admin: redis.Redis) -> Callable[[], object]:
    admin.execute_command("REPLICAOF", "127.0.0.1", "9")
    return lambda: admin.execute_command("REPLICAOF", "NO", "ONE")


def _lacks_replicas(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("min-replicas-to-write", 2)
    return lambda: admin.config_set("min-replicas-to-write", 0)


def _is_busy(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("lua-time-limit", 1)
    spin = threading.Thread(target=_spin_for_ever, args=(admin.connection_pool.connection_kwargs["port"],))
    spin.start()
    while True:
        try:
            admin.ping()
        except redis.ResponseError:  # BUSY
            break

    def end() -> None:
        admin.script_kill()
        spin.join()

    return end


def _spin_for_ever(port: int) -> None:
    with suppress(redis.RedisError):  # it is killed
        redis.Redis(port=port).eval("while true do end", 0)


def _is_full(admin: redis.Redis) -> Callable[[], object]:
    admin.config_set("maxmemory", 1)
    return lambda: admin.config_set("maxmemory", 0)


@pytest.mark.integration
@pytest.mark.parametrize("trouble", [_fails_over, _lacks_replicas, _is_busy, _is_full])
@pytest.mark.parametrize("by_script", [True, False])
def test_what_passes_by_waiting_is_waited_for(trouble: Callable[..., Callable[[], object]], by_script: bool) -> None:
    with server_with() as url:
        client, admin = connect_patiently(url), redis.Redis.from_url(url)
        append = client.register_script("return redis.call('INCR', KEYS[1])")
        append(keys=["other"])

        def call() -> object:
            return append(keys=["mine"]) if by_script else RedisIds(client, "run").allocate("generator-0").id

        end = trouble(admin)
        replies: list[object] = []
        caller = threading.Thread(target=lambda: replies.append(call()))
        caller.start()
        caller.join(0.3)
        assert caller.is_alive()
        end()
        caller.join()
        assert replies == [1]


@pytest.mark.integration
@pytest.mark.parametrize("open_connection", [connect, connect_patiently])
def test_what_needs_a_person_is_told_in_words_with_a_remedy(open_connection: Callable[[str], redis.Redis]) -> None:
    with server_with() as url:
        client = open_connection(url)
        client.hset("gptrec:{run}:token", "a", "hash")
        with pytest.raises(RedisRefusedError, match="wrong kind of value"):
            client.get("gptrec:{run}:token")
        admin = redis.Redis.from_url(url)
        admin.execute_command("ACL", "SETUSER", "default", "-get")
        with pytest.raises(RedisRefusedError, match="rights of its user"):
            client.get("gptrec:{run}:ids")


@pytest.mark.integration
@pytest.mark.parametrize("account", ["", "default@"])
@pytest.mark.parametrize("rest", ["", "?socket_timeout=5"])
def test_a_password_may_have_any_characters(account: str, rest: str) -> None:
    password = "p@ss/w:rd#%?&= ü+"
    with server_with() as url:
        redis.Redis.from_url(url).config_set("requirepass", password)
        whole = with_password(url.replace("//", f"//{account}") + rest, password)
        assert connect(whole).ping()
        assert "p%40ss" not in redact(whole)


@pytest.mark.integration
def test_calls_wait_for_a_redis_that_restarts(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "r.sock"

    def start() -> subprocess.Popen[bytes]:
        arguments = [find_server(), "--port", "0", "--unixsocket", path, "--dir", tmp_path, "--appendonly", "yes"]
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)

    clients: list[redis.Redis] = []
    connector = threading.Thread(target=lambda: clients.append(connect_patiently(f"unix://{path}")))
    connector.start()
    time.sleep(0.2)
    assert clients == []
    server = start()
    connector.join()
    (client,) = clients
    client.incr("counter")
    server.terminate()
    server.wait()
    replies: list[object] = []
    caller = threading.Thread(target=lambda: replies.append(client.incr("counter")))
    caller.start()
    time.sleep(0.2)
    assert replies == []
    server = start()
    caller.join()
    server.terminate()
    server.wait()
    assert replies == [2]


def test_who_is_to_stop_does_not_wait_for_a_redis_that_is_away(tmp_path: Path) -> None:
    wishes = threading.Event()
    with EmbeddedRedis(tmp_path / "redis") as url:
        client = connect_patiently(url, wishes.is_set)
        assert client.ping()
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(StorageError, match="Redis is away, and this process is to end"):
            client.ping()
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    assert not ended.wait(0.5)
    wishes.set()
    assert ended.wait(300)
    with pytest.raises(StorageError, match="Redis is away"):
        connect_patiently(url, wishes.is_set)
