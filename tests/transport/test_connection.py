"""Connecting to Redis: refusals are quick and tell no password, and a restart in mid-run is survived."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from gptrec_rl.errors import InputError
from gptrec_rl.transport.connection import connect, connect_patiently, redact, with_password
from gptrec_rl.transport.embedded import find_server


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
