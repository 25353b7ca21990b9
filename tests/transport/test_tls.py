"""TLS to a real Redis, with an authority and certificates made here."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from gptrec_rl.errors import InputError
from gptrec_rl.transport.connection import connect, connect_patiently

pytestmark = pytest.mark.integration

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Make ca.pem, a stranger's other.pem, and a certificate of ca.pem for 127.0.0.1."""
    for name in ("ca", "other"):
        openssl(
            folder, "req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"
        )
    openssl(folder, "req", *NEW_KEY[:-2], "-subj", "/CN=redis", "-keyout", "redis.key", "-out", "redis.csr")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "redis.csr", "-days", "1", *signed_by, "-out", "redis.pem")


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Run a Redis that speaks TLS alone; return its port and the folder of certificates."""
    program = shutil.which("redis-server")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("needs redis-server and openssl on the PATH (the embedded Redis has no TLS)")
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = ("--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.pem")
    options = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--requirepass", "secret")
    server = subprocess.Popen([program, *options, *files, "--save", ""], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        while not listens(port):
            if server.poll() is not None:
                pytest.skip(f"{program} has no TLS")
            time.sleep(0.05)
        yield port, folder
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def url_of(port: int, ca: Path, host: str = "127.0.0.1") -> str:
    return f"rediss://:secret@{host}:{port}/0?ssl_ca_certs={ca}"


def test_a_redis_of_the_given_authority_is_trusted(tls_redis: tuple[int, Path]) -> None:
    port, folder = tls_redis
    client = connect(url_of(port, folder / "ca.pem"))
    client.set("key", "value")
    assert client.get("key") == b"value"
    client.close()


@pytest.mark.parametrize("open_connection", [connect, connect_patiently])
@pytest.mark.parametrize(("ca", "host"), [("other.pem", "127.0.0.1"), ("ca.pem", "localhost")])
def test_another_authority_and_another_name_are_refused_at_once(
    tls_redis: tuple[int, Path], open_connection: Callable[[str], Redis], ca: str, host: str
) -> None:
    port, folder = tls_redis
    with pytest.raises(InputError, match=r"(?i)certificate") as caught:
        open_connection(url_of(port, folder / ca, host))
    assert "secret" not in str(caught.value)


def test_without_tls_nothing_is_said(tls_redis: tuple[int, Path]) -> None:
    with pytest.raises(InputError, match="can't be used"):
        connect(f"redis://:secret@127.0.0.1:{tls_redis[0]}/0")
