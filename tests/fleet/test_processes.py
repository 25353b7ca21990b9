from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from gptrec_rl.fleet import processes, tether
from gptrec_rl.fleet.cores import Share
from gptrec_rl.fleet.launcher import LOCALLY, Child, Process
from gptrec_rl.fleet.processes import (
    MAX_FAILURES,
    STOP_GRACE_S,
    TERMINATED,
    ChildFailedError,
    ProcessGroup,
    RunTakenOverError,
)

pytestmark = pytest.mark.integration

CORE = min(os.sched_getaffinity(0))
SHARE = Share((CORE,), 1)
WAITS_FOR_SIGTERM = (
    "from gptrec_rl.fleet.processes import stop_event; e = stop_event(); print('ready', flush=True); e.wait()"
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shell(script: str, role: str = "generator", index: int = 0) -> Child:
    return Child(role, index, ("sh", "-c", script), SHARE)


def python(script: str, role: str = "generator", index: int = 0) -> Child:
    return Child(role, index, (sys.executable, "-c", script), SHARE)


@contextmanager
def group_of(folder: Path, *children: Child, clock: Callable[[], float] = time.monotonic) -> Iterator[ProcessGroup]:
    group = ProcessGroup(children, folder / "logs", clock)
    try:
        yield group
    finally:
        group.stop(0)


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.02)


def polled(group: ProcessGroup, condition: Callable[[], bool]) -> Callable[[], bool]:
    def poll_and_check() -> bool:
        group.poll()
        return condition()

    return poll_and_check


def until_it_ends(group: ProcessGroup) -> None:
    wait_until(polled(group, lambda: not group.running()))


def log_of(folder: Path, name: str = "generator-0") -> str:
    return (folder / "logs" / f"{name}.log").read_text()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def assert_starts_after(group: ProcessGroup, clock: Clock, pause_s: float) -> None:
    clock.now += pause_s - 0.01
    group.poll()
    assert not group.running()
    clock.now += 0.01
    group.poll()
    assert group.running()


def test_pauses_double_up_to_a_minute_then_the_error_names_the_child_and_shows_its_log(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("echo out of luck; kill -9 $$", index=3), clock=clock) as group:
        group.start()
        for pause_s in (1, 2, 4, 8, 16, 32, 60, 60):
            until_it_ends(group)
            assert_starts_after(group, clock, pause_s)
        with pytest.raises(ChildFailedError, match=r"(?s)generator-3 was killed by SIGKILL.*out of luck"):
            until_it_ends(group)
    assert log_of(tmp_path, "generator-3").count("out of luck") == 1 + MAX_FAILURES


def test_a_minute_of_health_forgets_earlier_failures(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exec sleep 100"), clock=clock) as group:
        group.start()

        def kill_it() -> None:
            os.kill(group.running()[0].pid, signal.SIGKILL)
            until_it_ends(group)

        kill_it()
        assert_starts_after(group, clock, 1)
        clock.now += 59
        kill_it()
        assert_starts_after(group, clock, 2)
        clock.now += 60
        kill_it()
        assert_starts_after(group, clock, 1)


def test_a_child_killed_outright_comes_back_under_another_pid(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exec sleep 100"), shell("exec sleep 100", index=1), clock=clock) as group:
        group.start()
        first, other = group.running()
        os.kill(first.pid, signal.SIGKILL)
        wait_until(polled(group, lambda: len(group.running()) == 1))
        assert group.running() == [other]
        clock.now += 1
        group.poll()
        assert [running.child for running in group.running()] == [first.child, other.child]
        assert group.running()[0].pid != first.pid
        assert is_alive(group.running()[0].pid)
    assert "generator-0, attempt 2" in log_of(tmp_path)
    assert "attempt 2" not in log_of(tmp_path, "generator-1")


def test_a_service_that_a_stray_sigterm_ended_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell(f"exit {TERMINATED}", "validator"), clock=clock) as group:
        group.start()
        until_it_ends(group)
        assert not group.is_done("validator")
        assert_starts_after(group, clock, 1)


def test_a_service_that_was_asked_to_finish_is_done_when_sigterm_ends_it(tmp_path: Path) -> None:
    script = f"trap 'exit {TERMINATED}' TERM; echo ready; while true; do sleep 0.05; done"
    with group_of(tmp_path, shell(script, "validator")) as group:
        group.start()
        wait_until(lambda: "ready" in log_of(tmp_path, "validator-0"))
        group.finish("validator")
        wait_until(polled(group, lambda: group.is_done("validator")))


def test_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    with group_of(tmp_path, shell("echo unknown key stesp >&2; exit 2", "optimiser")) as group:
        group.start()
        with pytest.raises(ChildFailedError, match=r"(?s)optimiser-0 can't work.*unknown key stesp"):
            until_it_ends(group)


def test_a_child_whose_run_was_taken_over_ends_the_group_and_is_not_started_beside_the_other(tmp_path: Path) -> None:
    with group_of(tmp_path, shell("echo token 7 is at work; exit 75")) as group:
        group.start()
        with pytest.raises(RunTakenOverError, match=r"(?s)generator-0 has to end.*token 7 is at work") as caught:
            until_it_ends(group)
    assert caught.value.exit_code == 75


def test_failing_storage_is_waited_for_longer_than_anything_else(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exit 74"), clock=clock) as group:
        group.start()
        for pause_s in (1, 2, 4, 8, 16, 32, *[60] * 10):
            until_it_ends(group)
            assert_starts_after(group, clock, pause_s)


def test_who_is_waited_for_at_a_stop_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "SAY_EVERY_S", 0.01)
    slow = python(f"{WAITS_FOR_SIGTERM}; import time; time.sleep(0.5)")
    with group_of(tmp_path, slow) as group:
        group.start()
        wait_until(lambda: "ready" in log_of(tmp_path))
        group.stop(60)
    assert "waiting for generator-0, which has " in caplog.text
    assert "is killed" not in caplog.text


def test_a_child_that_ends_well_is_done_and_stays_ended(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exit 0", "optimiser"), shell("exec sleep 100"), clock=clock) as group:
        group.start()
        assert not group.is_done("optimiser")
        wait_until(polled(group, lambda: group.is_done("optimiser")))
        clock.now += 1000
        group.poll()
        assert [running.child.role for running in group.running()] == ["generator"]
        assert not group.is_done("generator")


def test_a_child_gets_its_share_of_the_machine_and_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import json, os; print(json.dumps([list(os.sched_getaffinity(0)), os.nice(0), os.getsid(0) == os.getpid(),"
        "*(os.environ[name] for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'BASE', 'SECRET'))]));"
        "print(open('/proc/self/autogroup').read().strip() if os.path.exists('/proc/self/autogroup') else '')"
    )
    child = Child("validator", 0, (sys.executable, "-c", script), Share((CORE,), 3, 2), {"SECRET": "s"})
    monkeypatch.setenv("BASE", "b")
    group = ProcessGroup([child], tmp_path / "logs")
    with group:
        group.start()
        wait_until(polled(group, lambda: group.is_done("validator")))
    reported, session = log_of(tmp_path, "validator-0").splitlines()[-2:]
    niceness = min(os.nice(0) + 2, 19)
    assert json.loads(reported) == [[CORE], niceness, True, "3", "3", "b", "s"]
    assert not session or session.endswith(f"nice {niceness}")


def test_a_child_that_cannot_be_started_now_is_started_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Short:
        """Starts what it is asked to at the third time."""

        n_calls = 0

        def start(self, child: Child, log: IO[bytes]) -> Process:
            self.n_calls += 1
            if self.n_calls < 3:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return LOCALLY.start(child, log)

    clock = Clock()
    with ProcessGroup([shell("exit 0")], tmp_path / "logs", clock, launcher=Short()) as group:
        group.start()
        assert not group.running()
        for _ in range(2):
            clock.now += 1
            group.poll()
        wait_until(polled(group, lambda: group.is_done("generator")))
    assert caplog.text.count("generator-0 can't be started: [Errno 11] Resource temporarily unavailable") == 2


def test_logs_are_appended_to(tmp_path: Path) -> None:
    for _ in range(2):
        with group_of(tmp_path, shell("echo hello")) as group:
            group.start()
            until_it_ends(group)
    assert log_of(tmp_path).count("attempt 1") == log_of(tmp_path).count("hello") == 2


def test_stop_asks_first_and_kills_only_its_own_that_do_not_listen(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "100"])
    polite = python(f"{WAITS_FOR_SIGTERM}; print('goodbye')")
    deaf = python("print('ready', flush=True); import time; time.sleep(100)", index=1)
    with group_of(tmp_path, polite, deaf) as group:
        group.start()
        wait_until(lambda: "ready" in log_of(tmp_path) and "ready" in log_of(tmp_path, "generator-1"))
        pids = [running.pid for running in group.running()]
        group.stop(grace_s=1.0)
        assert not group.running()
        assert not any(is_alive(pid) for pid in pids)
    assert "goodbye" in log_of(tmp_path)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_stop_of_a_role_leaves_the_others_and_nothing_is_started_again(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exec sleep 100", "validator"), shell("kill -9 $$"), clock=clock) as group:
        group.start()
        wait_until(polled(group, lambda: len(group.running()) == 1))
        group.stop(0, "generator")
        clock.now += 1000
        group.poll()
        assert [running.child.role for running in group.running()] == ["validator"]


def test_a_sigterm_before_the_child_listens_is_not_lost(tmp_path: Path) -> None:
    with group_of(tmp_path, python(f"{WAITS_FOR_SIGTERM}; print('goodbye')", "validator")) as group:
        group.start()
        group.finish("validator")
        wait_until(polled(group, lambda: group.is_done("validator")))
    assert "goodbye" in log_of(tmp_path, "validator-0")


def test_a_child_that_dies_while_it_finishes_is_started_and_asked_again(tmp_path: Path) -> None:
    clock = Clock()
    marker = tmp_path / "died"
    script = (
        f"{WAITS_FOR_SIGTERM}; import os, pathlib; marker = pathlib.Path({str(marker)!r})\n"
        "if not marker.exists(): marker.touch(); os.kill(os.getpid(), 9)"
    )
    with group_of(tmp_path, python(script, "validator"), clock=clock) as group:
        group.start()
        group.finish("validator")
        until_it_ends(group)
        assert marker.exists()
        assert not group.is_done("validator")
        clock.now += 1
        wait_until(polled(group, lambda: group.is_done("validator")))


def test_sigkill_of_the_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from gptrec_rl.fleet.cores import Share
from gptrec_rl.fleet.launcher import Child
from gptrec_rl.fleet.processes import ProcessGroup
children = [Child("generator", index, ("sleep", "100"), Share(({CORE},), 1)) for index in range(2)]
group = ProcessGroup(children, Path({str(tmp_path)!r}))
group.start()
print(*(running.pid for running in group.running()), flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    wait_until(lambda: [psutil.Process(pid).name() for pid in pids] == ["sleep", "sleep"])
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_child_whose_parent_died_before_it_was_tied_does_not_start(tmp_path: Path) -> None:
    not_its_parent = os.getppid()
    marker = tmp_path / "started"
    argv = [sys.executable, "-I", "-S", tether.__file__, str(not_its_parent), str(CORE), "0", "touch", str(marker)]
    assert subprocess.run(argv, check=False).returncode == 1
    assert not marker.exists()
    argv[4] = str(os.getpid())
    assert subprocess.run(argv, check=False).returncode == 0
    assert marker.exists()


INTERRUPTED_ANYWHERE = """
import signal
from gptrec_rl.fleet.processes import StopEvent
signal.signal(signal.SIGALRM, lambda *_: stop.set())
for n in range(5000):
    stop = StopEvent()
    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + n % 100))
    while not stop.wait(5e-6):
        pass
"""


def test_a_signal_may_set_the_event_at_any_moment_of_a_wait_for_it() -> None:
    subprocess.run([sys.executable, "-c", INTERRUPTED_ANYWHERE], check=True, timeout=300)


def test_a_role_gets_new_children_and_loses_others_while_the_rest_runs_on(tmp_path: Path) -> None:
    first, second, third = (python(WAITS_FOR_SIGTERM, index=index) for index in range(3))
    with group_of(tmp_path, first, second) as group:
        group.start()
        pid = group.running()[0].pid
        wait_until(lambda: "ready" in log_of(tmp_path, "generator-1"))
        group.keep_running("generator", [first, third])
        wait_until(polled(group, lambda: {r.child.name for r in group.running()} == {"generator-0", "generator-2"}))
        assert group.running()[0].pid == pid
        assert group.n_restarts == 0
        group.keep_running("generator", [first, second, third])
        assert {running.child.name for running in group.running()} == {f"generator-{index}" for index in range(3)}


def test_one_that_leaves_is_not_started_again_whatever_its_end_and_its_namesake_waits_for_it(tmp_path: Path) -> None:
    clock = Clock()
    deaf = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(100)")
    with group_of(tmp_path, deaf, clock=clock) as group:
        group.start()
        wait_until(lambda: "ready" in log_of(tmp_path))
        group.keep_running("generator", [])
        group.keep_running("generator", [deaf])
        group.poll()
        assert len(group.running()) == 1
        clock.now += STOP_GRACE_S + 1
        until_it_ends(group)
        clock.now += 1000
        group.poll()
        assert log_of(tmp_path).count("attempt") == 1
        group.keep_running("generator", [deaf])
        assert len(group.running()) == 1


def test_one_that_waits_for_its_next_start_leaves_at_once(tmp_path: Path) -> None:
    clock = Clock()
    with group_of(tmp_path, shell("exit 1"), clock=clock) as group:
        group.start()
        until_it_ends(group)
        group.keep_running("generator", [])
        clock.now += 1000
        group.poll()
        assert group.running() == []
        assert log_of(tmp_path).count("attempt") == 1
