"""The fleet of containers for real: built, scaled, killed, cut off, restarted, and finished with its report.

Needs an engine, its command line and compose, and to be root where the engine is: processes are killed from outside,
as `docker kill` would cancel their restart. `BUILD_NETWORK=host` where the engine's own network has no way out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
PROJECT = "gptrec-test"
ENDLESS = "1000000"
SETTINGS = {
    "STEPS": ENDLESS,
    "PRETRAIN_MINUTES": "0.2",
    "SETTINGS": "fleet.checkpoint_every_s=10 fleet.validator_share=0.1",
    "COMPOSE_PROJECT_NAME": PROJECT,
}
PATIENCE_S = 300.0
SCRAPE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
LEDGER = ("waiting", "drawn", "evicted", "stale", "rejected")
CACHE_BATCHES = 8


def run(command: list[str], environment: Mapping[str, str], timeout_s: float = 1800) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def succeeds(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait_for(what: str, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
    """Wait until it is true; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(1.0)
    return time.monotonic() - started


class Fleet:
    """A compose project and what the test does to it."""

    def __init__(self) -> None:
        self._compose = ["docker", "compose"] if succeeds("docker", "compose", "version") else ["docker-compose"]

    def compose(self, *arguments: str, **settings: str) -> str:
        return run([*self._compose, *arguments], {**SETTINGS, **settings})

    def docker(self, *arguments: str, timeout_s: float = PATIENCE_S) -> str:
        return run(["docker", *arguments], {}, timeout_s)

    def containers(self, service: str) -> list[str]:
        labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
        found = self.docker(
            "ps", "--all", "--quiet", *(word for label in labels for word in ("--filter", f"label={label}"))
        )
        return found.split()

    def inspect(self, service: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.docker("inspect", self.containers(service)[0]))[0]
        return facts

    def page(self) -> dict[str, dict[tuple[str, str], float]]:
        """Return what Prometheus would be shown: name, then role and id (or what is waited for), then the value."""
        try:
            text = self.docker("exec", self.containers("exporter")[0], "python", "-c", SCRAPE, timeout_s=60)
        except (AssertionError, subprocess.TimeoutExpired):  # it is being started
            return {}
        samples: dict[str, dict[tuple[str, str], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                key = labels.get("role", ""), labels.get("what", labels.get("id", ""))
                samples.setdefault(sample.name, {})[key] = sample.value
        return samples

    def of_optimiser(self, name: str) -> float:
        return self.page().get(name, {}).get(("optimiser", "0"), -1.0)

    def step(self) -> float:
        return self.of_optimiser("gptrec_step")

    def steps_go_on(self) -> float:
        """Wait for a step beyond the newest known one; return the seconds that it took."""
        wait_for("a step is reported", lambda: self.step() >= 0)
        before = self.step()
        return wait_for("steps go on", lambda: self.step() > before)

    def heard(self, role: str, since: float) -> set[str]:
        times = self.page().get("gptrec_heard_timestamp_seconds", {})
        return {process for (heard, process), at in times.items() if heard == role and at > since}

    def kill_main_process(self, service: str) -> None:
        """SIGKILL from outside, and wait until the engine has started it again."""
        before = self.inspect(service)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        restarts = before["RestartCount"]

        def is_back() -> bool:
            now = self.inspect(service)
            return bool(now["RestartCount"] > restarts and now["State"]["Running"])

        wait_for(f"{service} runs again", is_back)

    def ledger_balances(self) -> bool:
        page = self.page()
        counts = {
            name: page.get(f"gptrec_cache_{name}_batches" + ("" if name == "waiting" else "_total"), {})
            for name in ("generated", *LEDGER)
        }
        values = {name: count.get(("optimiser", "0"), 0.0) for name, count in counts.items()}
        say(f"ledger {values}")
        return values["generated"] == sum(values[name] for name in LEDGER) > 0


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    if not succeeds("docker", "info"):
        pytest.skip("needs a Docker engine (DOCKER_HOST)")
    if not (succeeds("docker", "compose", "version") or succeeds("docker-compose", "version")):
        pytest.skip("needs docker compose, or docker-compose 1.29 or newer")
    if os.geteuid() != 0 or os.environ.get("DOCKER_HOST", "unix://").partition("://")[0] != "unix":
        pytest.skip("needs to be root on the engine's machine, to kill processes from outside")
    fleet = Fleet()
    fleet.compose("down", "--volumes")
    try:
        yield fleet
    except BaseException:
        print(fleet.compose("logs", "--tail", "30"))
        raise
    finally:
        fleet.compose("down", "--volumes")


def test_a_fleet_of_containers_survives_all_this_and_ends_with_its_report(fleet: Fleet) -> None:
    started = time.monotonic()
    fleet.compose("build")
    say(f"built after {time.monotonic() - started:.0f} s")
    fleet.compose("up", "--detach")
    say(f"up after {time.monotonic() - started:.0f} s; first step {fleet.steps_go_on():.0f} s later")
    check_confinement(fleet)
    check_scaling(fleet, 3)
    for service in ("optimiser", "generator", "validator", "exporter", "report", "redis"):
        check_recovery_from_sigkill(fleet, service)
    optimiser = fleet.inspect("optimiser")["State"]["StartedAt"]
    fleet.docker("restart", fleet.containers("redis")[0])
    say(f"redis restarted: steps go on after {fleet.steps_go_on():.0f} s")
    assert fleet.inspect("optimiser")["State"]["StartedAt"] == optimiser
    check_network_cut(fleet)
    check_scaling(fleet, 1)
    assert fleet.ledger_balances()
    check_end(fleet)
    check_that_it_ends_again(fleet)
    say(f"all of it took {time.monotonic() - started:.0f} s")


def check_confinement(fleet: Fleet) -> None:
    """Ordinary user, read-only root, no rights, no port; and no password where others could read it."""
    exporter = fleet.containers("exporter")[0]
    password = fleet.docker("exec", exporter, "cat", "/secrets/password")
    shown = fleet.compose("logs") + fleet.compose("config")
    for service in ("redis", "optimiser", "validator", "generator", "exporter", "report", "prepare"):
        facts = fleet.inspect(service)
        shown += json.dumps(facts)
        assert facts["Config"]["User"] in ("gptrec", "redis")
        assert facts["HostConfig"]["ReadonlyRootfs"]
        assert facts["HostConfig"]["CapDrop"] == ["ALL"]
        assert facts["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
        assert not facts["HostConfig"]["PortBindings"]
    shown += "".join(path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline"))
    assert len(password) == 64
    assert password not in shown
    search = "grep -rlFf /secrets/password /runs || true"
    assert fleet.docker("exec", exporter, "sh", "-c", search) == ""
    assert fleet.docker("exec", exporter, "sh", "-c", "touch /file 2>/dev/null || echo refused") == "refused\n"


def check_scaling(fleet: Fleet, n_generators: int) -> None:
    """More and fewer generators while all else runs on."""
    optimiser = fleet.inspect("optimiser")["State"]["StartedAt"]
    fleet.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"generator={n_generators}", "generator")
    since = time.time()
    seconds = wait_for(f"{n_generators} generators", lambda: len(fleet.heard("generator", since)) == n_generators)
    assert len(fleet.containers("generator")) == n_generators
    assert fleet.inspect("optimiser")["State"]["StartedAt"] == optimiser
    say(f"{n_generators} generators after {seconds:.0f} s; steps go on after {fleet.steps_go_on():.0f} s")


def check_recovery_from_sigkill(fleet: Fleet, service: str) -> None:
    killed_at = time.time()
    generated = fleet.of_optimiser("gptrec_cache_generated_batches_total")
    fleet.kill_main_process(service)
    if service in ("optimiser", "validator", "generator"):
        wait_for(f"{service} is heard again", lambda: bool(fleet.heard(service, killed_at)))
    fleet.steps_go_on()
    assert fleet.of_optimiser("gptrec_cache_generated_batches_total") >= generated, "Redis has forgotten batches"
    say(f"{service} killed: it is back and steps go on after {time.time() - killed_at:.0f} s")


def check_network_cut(fleet: Fleet) -> None:
    """Three generators without a network for 30 s: the learner uses up what it has, waits, and goes on."""
    optimiser = fleet.inspect("optimiser")
    generators = fleet.containers("generator")
    for generator in generators:
        fleet.docker("network", "disconnect", f"{PROJECT}_fleet", generator)
    time.sleep(15)
    first = fleet.of_optimiser("gptrec_cache_generated_batches_total"), fleet.step()
    time.sleep(15)
    second = fleet.of_optimiser("gptrec_cache_generated_batches_total"), fleet.step()
    waits = fleet.page()["gptrec_wait_for_ratio"].get(("optimiser", "batches"), 0.0)
    say(f"cut off for 30 s: batches and steps {first} after 15 s, {second} after 30 s; the optimiser waits {waits:.0%}")
    assert second[0] == first[0]
    assert second[1] - first[1] <= CACHE_BATCHES
    assert waits > 0
    for generator in generators:
        fleet.docker("network", "connect", f"{PROJECT}_fleet", generator)
    seconds = wait_for("steps go on", lambda: fleet.step() > second[1])
    assert fleet.inspect("optimiser")["State"] == optimiser["State"]
    say(f"connected again: steps go on after {seconds:.0f} s")


def check_end(fleet: Fleet) -> None:
    """A budget that is nearly used, taken up by a restarted optimiser; then the report, and who is done ends with 0."""
    steps = str(int(fleet.step()) + 30)
    fleet.compose("up", "--detach", STEPS=steps)
    fleet.compose("restart", "optimiser", STEPS=steps)
    report = fleet.containers("report")[0]
    assert fleet.docker("wait", report, timeout_s=1200).strip() == "0"
    said = fleet.docker("logs", report)
    say(said)
    assert [line for line in said.splitlines() if line.startswith(("Markov chain", "student", "tuned: "))]
    done = re.search(r"([\d,]+) steps in", said)
    assert done is not None
    assert int(done[1].replace(",", "")) >= int(steps)
    for service in ("optimiser", "validator", "generator"):
        wait_for(f"{service} ends", lambda name=service: not fleet.inspect(name)["State"]["Running"])  # type: ignore[misc]
        assert fleet.inspect(service)["State"]["ExitCode"] == 0
    picture = fleet.docker("exec", fleet.containers("exporter")[0], "head", "-c", "4", "/runs/first/trade-off.png")
    assert "PNG" in picture
    assert fleet.ledger_balances()


def check_that_it_ends_again(fleet: Fleet) -> None:
    """`up` on a finished run finds that there is nothing left to do, and shows the table again."""
    last, ended_before = str(int(fleet.step())), fleet.inspect("report")["State"]["FinishedAt"]
    fleet.compose("up", "--detach", STEPS=last)
    report = fleet.containers("report")[0]
    assert fleet.docker("wait", report, timeout_s=900).strip() == "0"
    assert "Picture:" in fleet.docker("logs", report)
    assert fleet.inspect("report")["State"]["FinishedAt"] > ended_before
