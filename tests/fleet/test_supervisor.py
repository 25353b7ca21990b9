from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from click.testing import CliRunner

from gptrec_rl.config import TuneConfig
from gptrec_rl.fleet import supervisor
from gptrec_rl.fleet.cores import Share
from gptrec_rl.fleet.launcher import Child
from gptrec_rl.fleet.processes import ChildFailedError
from gptrec_rl.fleet.supervisor import Supervisor, fleet_children
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MemoryMetrics, MetricRecord
from gptrec_rl.transport.control import MemoryControl
from services.supervisor import main

pytestmark = pytest.mark.integration

SHARE = Share((min(os.sched_getaffinity(0)),), 1)
WAITS_FOR_SIGTERM = (
    "from gptrec_rl.fleet.processes import stop_event; e = stop_event(); print('ready', flush=True); e.wait(); "
    "print('goodbye')"
)
DEAF = "import time; print('ready', flush=True); time.sleep(100)"


def shell(role: str, script: str, index: int = 0) -> Child:
    return Child(role, index, ("sh", "-c", script), SHARE)


def python(role: str, script: str, index: int = 0) -> Child:
    return Child(role, index, (sys.executable, "-c", script), SHARE)


def fleet(optimiser: str) -> list[Child]:
    return [shell("optimiser", optimiser), *(python(role, WAITS_FOR_SIGTERM) for role in ("validator", "generator"))]


def record(role: str, step: int, values: dict[str, float], index: int = 0) -> MetricRecord:
    return MetricRecord(role=role, id=index, token=1, step=step, time=12.5, values=values)


def log_of(run_dir: Path, name: str) -> str:
    path = run_dir / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.02)


ChildrenLeft = Callable[[], list[psutil.Process]]


@pytest.fixture
def children_left() -> ChildrenLeft:
    """Return what lists the children that this process has and hadn't before the test."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


def test_when_the_optimiser_is_done_the_others_finish_and_the_stream_is_on_disk(tmp_path: Path) -> None:
    stream = MemoryMetrics()
    sent = [
        record("optimiser", 7, {"reward/mean": 0.5}),
        record("validator", 7, {"val/ndcg@10": 0.25}),
        record("validator", 7, {"speed/lists_per_s": 3.0}),
    ]
    for item in sent:
        stream.append(item)
    shown: list[MetricRecord] = []
    assert Supervisor(tmp_path, fleet("sleep 0.5"), stream).run(shown.append) == 0
    assert shown == sent
    assert "goodbye" in log_of(tmp_path, "validator-0")
    assert "goodbye" in log_of(tmp_path, "generator-0")
    assert [line["values"] for line in lines_of(tmp_path / "metrics.jsonl")] == [item.values for item in sent]
    assert [line["values"] for line in lines_of(tmp_path / "validations.jsonl")] == [{"val/ndcg@10": 0.25}]


def test_records_sent_in_the_last_moment_are_kept(tmp_path: Path) -> None:
    class LateStream(MemoryMetrics):
        """Gives a record once the validator has said goodbye."""

        is_sent = False

        def read(self, *arguments: object, **options: object) -> tuple[list[MetricRecord], str]:
            if "goodbye" in log_of(tmp_path, "validator-0") and not self.is_sent:
                self.append(record("validator", 9, {"val/ndcg@10": 0.5}))
                self.is_sent = True
            return super().read(*arguments, **options)  # type: ignore[arg-type]

    assert Supervisor(tmp_path, fleet("exit 0"), LateStream()).run() == 0
    assert [line["step"] for line in lines_of(tmp_path / "validations.jsonl")] == [9]


@pytest.mark.parametrize("trouble", [redis.ConnectionError("gone"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_redis_that_is_away_and_a_full_disk_are_waited_for_and_nobody_seems_to_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    stream, shown = MemoryMetrics(), list[MetricRecord]()
    stream.append(record("optimiser", 7, {"reward/mean": 0.5}))
    failing = MemoryMetrics if isinstance(trouble, redis.RedisError) else RunRecords
    method = "read" if failing is MemoryMetrics else "append"
    work, over_at = getattr(failing, method), time.monotonic() + 5.0

    def refuse_for_a_while(*arguments: object) -> object:
        if time.monotonic() < over_at:
            raise trouble
        return work(*arguments)

    monkeypatch.setattr(failing, method, refuse_for_a_while)
    watched = Supervisor(tmp_path, fleet("sleep 5.5"), stream, heartbeat_s=4.0 / supervisor.HANGS_AFTER)
    assert watched.run(shown.append) == 0
    kept = lines_of(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in kept if line["role"] == "optimiser"] == [7]
    assert [item.step for item in shown if item.role == "optimiser"] == [7]
    assert caplog.text.count(f"waits for {'Redis' if method == 'read' else 'room for records on the disk'}") == 1
    assert "has sent nothing" not in caplog.text


def test_a_resumed_run_appends_what_is_new(tmp_path: Path) -> None:
    stream = MemoryMetrics()
    for step in (1, 2):
        stream.append(record("optimiser", step, {"reward/mean": 0.0}))
        Supervisor(tmp_path, fleet("exit 0"), stream).run()
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_silent_child_is_killed_and_started_again_and_one_that_reports_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ChattyStream(MemoryMetrics):
        """Hears from generator 1 at every reading until the optimiser is done."""

        def read(self, *arguments: object, **options: object) -> tuple[list[MetricRecord], str]:
            if "done" not in log_of(tmp_path, "optimiser-0"):
                self.append(record("generator", 0, {"speed/lists_per_s": 1.0}, index=1))
            return super().read(*arguments, **options)  # type: ignore[arg-type]

    marker = tmp_path / "hung"
    hangs_once = f"[ -e {marker} ] && echo done && exit 0; touch {marker}; exec sleep 100"
    children = [shell("optimiser", hangs_once), *(python("generator", WAITS_FOR_SIGTERM, index) for index in range(2))]
    with caplog.at_level(logging.WARNING):
        # The clock runs fifty times as fast: 100 s of silence are 2 s here, and a pause of 1 s is hardly any.
        watched = Supervisor(
            tmp_path,
            children,
            ChattyStream(),
            heartbeat_s=100.0 / supervisor.HANGS_AFTER,
            clock=lambda: 50 * time.monotonic(),
        )
        assert watched.run() == 0
    assert "optimiser-0 has sent nothing for" in caplog.text
    assert "optimiser-0 was killed by SIGKILL" in caplog.text
    assert "optimiser-0, attempt 2" in log_of(tmp_path, "optimiser-0")
    assert "generator-0 has sent nothing for" in caplog.text
    assert "generator-1 has sent nothing for" not in caplog.text


def test_who_has_yet_to_say_a_word_may_take_longer_than_who_falls_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class HeardOnce(MemoryMetrics):
        """Hears from generator 0 at the first reading alone."""

        def read(self, *arguments: object, **options: object) -> tuple[list[MetricRecord], str]:
            if not self._records:
                self.append(record("generator", 0, {"speed/lists_per_s": 1.0}))
            return super().read(*arguments, **options)  # type: ignore[arg-type]

    marker = tmp_path / "hung"
    hangs_once = f"[ -e {marker} ] && exit 0; touch {marker}; exec sleep 100"
    children = [shell("optimiser", hangs_once), python("generator", WAITS_FOR_SIGTERM, 0)]
    with caplog.at_level(logging.WARNING):
        seconds = itertools.count(step=2.0)  # passes with every look at the clock, whatever the machine does
        Supervisor(
            tmp_path, children, HeardOnce(), heartbeat_s=60.0 / supervisor.HANGS_AFTER, clock=lambda: next(seconds)
        ).run()
    killed = [message for message in caplog.messages if "has sent nothing for" in message]
    assert [message.split()[0] for message in killed[:2]] == ["generator-0", "optimiser-0"]
    assert [int(message.split()[5]) > 180 for message in killed[:2]] == [False, True]


def test_a_child_that_refuses_its_input_stops_all_and_says_why(children_left: ChildrenLeft, tmp_path: Path) -> None:
    children = fleet("echo no such store; exit 2")
    with pytest.raises(ChildFailedError, match=r"(?s)optimiser-0.*no such store"):
        Supervisor(tmp_path, children, MemoryMetrics()).run()
    assert children_left() == []


def generators_of(n: int) -> list[Child]:
    return [python("generator", WAITS_FOR_SIGTERM, index) for index in range(n)]


def test_generators_come_and_go_as_wished_while_others_run_on(children_left: ChildrenLeft, tmp_path: Path) -> None:
    control, stream, optimiser_may_end = MemoryControl(), MemoryMetrics(), tmp_path / "enough"
    children = [shell("optimiser", f"while [ ! -e {optimiser_may_end} ]; do sleep 0.1; done"), *generators_of(1)]
    control.start(1)
    seen: list[int] = []

    def drive(item: MetricRecord) -> None:
        """Wish for three once one is there, for two once three are, and end once two are."""
        if item.role != "supervisor" or item.values["fleet/generators"] != item.values["fleet/generators_wanted"]:
            return
        if (n := int(item.values["fleet/generators"])) not in seen:
            seen.append(n)
            control.scale({1: 3, 3: 2, 2: 2}[n])
        if n == 2:
            optimiser_may_end.touch()

    watched = Supervisor(tmp_path, children, stream, control=control, generators=generators_of, heartbeat_s=0.5)
    assert watched.run(drive) == 0
    assert seen == [1, 3, 2]
    assert all(log_of(tmp_path, f"generator-{index}").count("attempt") == 1 for index in range(3))
    assert log_of(tmp_path, "optimiser-0").count("attempt") == 1
    assert children_left() == []


def test_a_stop_that_is_wished_is_like_sigterm_also_when_the_optimiser_hears_of_it_first(
    children_left: ChildrenLeft, tmp_path: Path
) -> None:
    control = MemoryControl()

    class StoppingStream(MemoryMetrics):
        """Wishes for a stop as the optimiser, which has heard of it, ends with code 0."""

        def read(self, *arguments: object, **options: object) -> tuple[list[MetricRecord], str]:
            if "ended" in log_of(tmp_path, "optimiser-0"):
                control.stop()
            return super().read(*arguments, **options)  # type: ignore[arg-type]

    control.stop()  # an earlier one, which is over
    watched = Supervisor(tmp_path, fleet("sleep 0.5; echo ended"), StoppingStream(), control=control)
    assert watched.run() == 128 + signal.SIGTERM
    assert "goodbye" in log_of(tmp_path, "generator-0")
    assert children_left() == []


def test_the_supervisor_reports_its_generators_and_how_often_a_process_was_started_again(tmp_path: Path) -> None:
    stream, marker = MemoryMetrics(), tmp_path / "failed"
    optimiser = f"[ -e {marker} ] && sleep 2 && exit 0; touch {marker}; exit 1"
    Supervisor(tmp_path, fleet(optimiser), stream, heartbeat_s=0.5).run()
    last = [item.values for item in stream.read()[0] if item.role == "supervisor"][-1]
    assert last["fleet/restarts"] == 1
    assert last["fleet/generators"] == last["fleet/generators_wanted"] == 1
    assert last["fleet/cores"] == len(os.sched_getaffinity(0))


def test_a_standstill_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stream = MemoryMetrics()
    for time_s in range(0, 120, 5):
        stream.append(MetricRecord("optimiser", 0, 1, 7, float(time_s), {"wait/share": 1.0, "wait/batches": 1.0}))
    with caplog.at_level(logging.WARNING):
        Supervisor(tmp_path, fleet("sleep 1"), stream).run()
    assert caplog.text.count("the optimiser waits for batches; no generator has said anything") == 1


def test_the_fleet_has_its_roles_and_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    url = "redis://:secret@localhost:6379"
    children = fleet_children(tmp_path, url, 3, optimiser_on_gpu=False)
    assert [child.name for child in children] == [
        "optimiser-0",
        "validator-0",
        "generator-0",
        "generator-1",
        "generator-2",
    ]
    assert all(child.environment == {"GPTREC_REDIS_URL": url} for child in children)
    assert not any("secret" in word for child in children for word in child.argv)
    assert children[0].argv[1:] == ("-P", "-m", "services.optimiser", "--run-dir", str(tmp_path))
    assert children[3].argv[1:] == ("-P", "-m", "services.generator", "--run-dir", str(tmp_path), "--index", "1")


def test_a_fleet_without_a_redis_gets_one_that_a_resumed_run_finds_again(
    children_left: ChildrenLeft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports_once = """
import os
from gptrec_rl.transport.connection import connect
from gptrec_rl.telemetry.stream import MetricRecord, RedisMetrics
client = connect(os.environ["GPTREC_REDIS_URL"])
step = client.incr("step")
RedisMetrics(client, "mine").append(MetricRecord("optimiser", 0, 1, step, 12.5, {"reward/mean": 0.5}))
"""

    def one_child(run_dir: Path, redis_url: str, n_generators: int, optimiser_on_gpu: bool) -> list[Child]:
        environment = {"GPTREC_REDIS_URL": redis_url}
        return [Child("optimiser", 0, (sys.executable, "-c", reports_once), SHARE, environment)]

    monkeypatch.setattr(supervisor, "fleet_children", one_child)
    for _ in range(2):
        config = TuneConfig(run_id="mine")
        assert supervisor.supervise(tmp_path, config, redis_url=None, optimiser_on_gpu=False) == 0
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [1, 2]
    assert children_left() == []


def test_a_folder_without_a_configuration_is_bad_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--run-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not a run folder: it has no config.toml; it is empty" in result.output


def start_supervisor(run_dir: Path, generator: str) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """Start a supervisor of three children in a process of its own, and wait until they listen."""
    script = f"""
import sys
from pathlib import Path
from gptrec_rl.fleet.cores import Share
from gptrec_rl.fleet.launcher import Child

from gptrec_rl.telemetry.stream import MemoryMetrics
from gptrec_rl.fleet import supervisor
supervisor.STOP_GRACE_S = 1000.0
scripts = dict(optimiser={WAITS_FOR_SIGTERM!r}, validator={WAITS_FOR_SIGTERM!r}, generator={generator!r})
children = [Child(role, 0, (sys.executable, "-c", script), {SHARE!r}) for role, script in scripts.items()]
sys.exit(supervisor.Supervisor(Path({str(run_dir)!r}), children, MemoryMetrics()).run())
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    names = ("optimiser-0", "validator-0", "generator-0")
    wait_until(lambda: all("ready" in log_of(run_dir, name) for name in names))
    return process, psutil.Process(process.pid).children()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all_cleanly(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    process, children = start_supervisor(tmp_path, WAITS_FOR_SIGTERM)
    process.send_signal(number)
    assert process.wait(timeout=300) == exit_code
    assert not any(child.is_running() for child in children)
    assert all("goodbye" in log_of(tmp_path, name) for name in ("optimiser-0", "validator-0", "generator-0"))


def test_a_second_signal_does_not_wait_for_children_that_do_not_listen(tmp_path: Path) -> None:
    process, children = start_supervisor(tmp_path, DEAF)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "goodbye" in log_of(tmp_path, "optimiser-0"))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    assert not any(child.is_running() for child in children)


def test_sigkill_of_the_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    process, children = start_supervisor(tmp_path, WAITS_FOR_SIGTERM)
    assert len(children) == 3
    process.kill()
    process.wait()
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))


def test_generators_of_other_machines_are_told_when_the_run_is_over_and_not_when_it_is_interrupted(
    tmp_path: Path,
) -> None:
    control = MemoryControl()
    assert Supervisor(tmp_path, fleet("exit 0"), MemoryMetrics(), control=control).run() == 0
    assert control.wishes().n_stops == 1
    interrupted = fleet(f"kill -TERM {os.getpid()}; exec sleep 2")
    assert Supervisor(tmp_path, interrupted, MemoryMetrics(), control=control).run() == 128 + signal.SIGTERM
    assert control.wishes().n_stops == 1


def test_a_redis_that_cannot_be_started_again_now_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Dead:
        """Comes back at the third try."""

        n_tries = 0

        def revive(self) -> None:
            self.n_tries += 1
            if self.n_tries < 3:
                raise OSError(errno.ENOSPC, "No space left on device")

    dead = Dead()
    watched = Supervisor(tmp_path, fleet("sleep 2"), MemoryMetrics(), embedded_redis=dead)  # type: ignore[arg-type]
    assert watched.run() == 0
    assert dead.n_tries >= 3
    assert "waits for its Redis to start again: [Errno 28]" in caplog.text
