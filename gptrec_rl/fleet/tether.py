"""Becomes a command that can't outlive its parent; `ProcessGroup` runs this file as a script in front of each child.

A script rather than Popen's `preexec_fn`, which is not safe in a parent with threads. It imports nothing but the
standard library, so that it is in place within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def become(parent: int, cores: set[int], niceness: int, argv: list[str]) -> None:
    """Replace this process by a command that the kernel kills when its parent dies; doesn't return.

    Args:
        parent: process id of the parent; Linux watches the thread that started us, so that has to be a lasting one.
        cores: the cores to run on.
        niceness: added to the parent's.
        argv: the command.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the kernel knew of our wish.
        os._exit(1)
    os.sched_setaffinity(0, cores)
    own_niceness = os.nice(niceness)
    with contextlib.suppress(OSError):  # Many kernels weigh whole sessions against each other, and a child is one.
        Path("/proc/self/autogroup").write_text(str(own_niceness))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    become(int(sys.argv[1]), {int(core) for core in sys.argv[2].split(",")}, int(sys.argv[3]), sys.argv[4:])
