"""The network of a fleet on one machine: a unix socket in front of Redis that can be cut for one role at a time.

While a role is cut off nothing passes, and connections stay open, as when a cable is pulled; what was under way arrives
once it is plugged in again.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20


@dataclass(frozen=True)
class _Trap:
    """What happens in the middle of a role's next message of some size."""

    role: str
    at_least: int
    spring: Callable[[], None]


class Proxy:
    """Context manager around a thread that passes on what processes and Redis have to say to each other.

    Args:
        path: of the socket that processes connect to.
        server: of the socket of Redis.
        role_of: names the role of a process by its id.
    """

    def __init__(self, path: Path, server: Path, role_of: Callable[[int], str]) -> None:
        self._path = path
        self._server = server
        self._role_of = role_of
        self._passable: dict[str, threading.Event] = defaultdict(_set_event)
        self._trap: _Trap | None = None

    def __enter__(self) -> Proxy:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self, role: str) -> None:
        """Let nothing of a role pass any more."""
        self._passable[role].clear()

    def heal(self, role: str) -> None:
        """Let pass what a role sends and gets."""
        self._passable[role].set()

    def spring_at_next(self, role: str, at_least: int, spring: Callable[[], None]) -> None:
        """Call a function when half of a role's next message of so many bytes has passed; the rest is lost."""
        self._trap = _Trap(role, at_least, spring)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end of the context
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        role = self._role_of(_pid_of_peer(client))
        self._passable[role].wait()
        server = socket.socket(socket.AF_UNIX)
        with client, server, contextlib.suppress(OSError):  # either end may go at any time
            server.connect(str(self._server))
            threading.Thread(target=self._pass, args=(server, client, role), daemon=True).start()
            self._pass(client, server, role, is_request=True)

    def _pass(self, source: socket.socket, target: socket.socket, role: str, is_request: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._passable[role].wait()
                trap = self._trap
                if is_request and trap and trap.role == role and len(data) >= trap.at_least:
                    self._trap = None
                    target.sendall(data[: len(data) // 2])
                    trap.spring()
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _pid_of_peer(connection: socket.socket) -> int:
    credentials = struct.Struct("3i")
    pid: int = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))[0]
    return pid
