"""`gptrec-rl fleet` on a run whose fleet is a few records in an embedded Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.telemetry.stream import MetricRecord, RedisMetrics, encode_record
from gptrec_rl.transport.connection import connect
from gptrec_rl.transport.control import RedisControl, Wishes
from gptrec_rl.transport.embedded import EmbeddedRedis

pytestmark = pytest.mark.integration

Say = Callable[..., None]


def fleet(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["fleet", *arguments], env={"GPTREC_REDIS_URL": ""})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    write_config(TuneConfig(run_id="mine"), folder / "config.toml")
    with EmbeddedRedis(folder / "redis"):
        yield folder


@pytest.fixture
def url(run_dir: Path) -> str:
    """Return the URL of the run's Redis, which is empty."""
    url = (run_dir / "redis" / "url").read_text()
    connect(url).flushall()
    return url


@pytest.fixture
def say(url: str) -> Say:
    """Return what lets a process of the fleet report."""

    def report(role: str, age_s: float = 0.0, **values: float) -> None:
        client = connect(url)
        came_at = RedisMetrics(client, "mine").now() - age_s  # an entry of a stream has its time in its id
        clock_of_its_own = came_at + 90.0
        record = MetricRecord(role, 0, 1, 7, clock_of_its_own, {k.replace("__", "/"): v for k, v in values.items()})
        client.xadd("gptrec:{mine}:metrics", {"record": encode_record(record)}, id=f"{round(came_at * 1000)}-0")

    return report


@pytest.fixture
def wishes(url: str) -> Callable[[], Wishes]:
    return RedisControl(connect(url), "mine").wishes


def test_generators_of_a_supervisor_are_scaled(run_dir: Path, say: Say, wishes: Callable[[], Wishes]) -> None:
    say("supervisor", fleet__cores=2.0)
    result = fleet("scale", "generator=8", "--run-dir", str(run_dir))
    assert (result.exit_code, wishes().n_generators) == (0, 8)
    assert "8 generators are wanted" in result.output
    refused = fleet("scale", "generator=9", "--run-dir", str(run_dir))
    assert (refused.exit_code, wishes().n_generators) == (2, 8)
    assert "9 generators are more than 2 cores can feed; ask for 8 or fewer" in refused.output


def test_without_a_supervisor_the_command_is_printed_and_why(
    run_dir: Path, say: Say, wishes: Callable[[], Wishes]
) -> None:
    say("supervisor", age_s=600.0, fleet__cores=2.0)  # of an earlier fleet
    say("optimiser")
    result = fleet("scale", "generator=9", "--run-dir", str(run_dir))
    assert result.exit_code == 0
    assert result.stdout == "docker compose up -d --no-deps --no-recreate --scale generator=9 generator\n"
    assert "No Supervisor runs this fleet" in result.stderr
    assert wishes() == Wishes()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("optimiser=2", "'optimiser' can't be scaled, only generators can"),
        ("generators=2", "did you mean generator?"),
        ("GENERATOR=2", "did you mean generator?"),
        ("generator", "'generator' names no number"),
        ("generator=many", "'generator=many' names no number"),
        ("generator=1.5", "'generator=1.5' names no number"),
        ("generator=0", "a fleet of 0 generators generates nothing"),
        ("generator=-3", "a fleet of -3 generators generates nothing"),
        ("generator=1025", "1025 generators are too many"),
        ("generator=" + "9" * 5000, "generators are too many"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(tmp_path: Path, wish: str, message: str) -> None:
    result = fleet("scale", wish, "--run-dir", str(tmp_path))
    assert result.exit_code == 2
    assert message in result.output


def test_pause_resume_and_stop_are_wished(run_dir: Path, say: Say, wishes: Callable[[], Wishes]) -> None:
    say("optimiser")
    assert fleet("pause", "--run-dir", str(run_dir)).exit_code == 0
    assert wishes() == Wishes(is_paused=True)
    assert fleet("resume", "--run-dir", str(run_dir)).exit_code == 0
    assert wishes() == Wishes()
    assert "docker compose up -d" in fleet("stop", "--run-dir", str(run_dir)).output
    assert wishes() == Wishes(n_stops=1)
    say("supervisor")
    assert f"tune --run-dir {run_dir} --on-existing resume" in fleet("stop", "--run-dir", str(run_dir)).output


def test_status_shows_processes_and_the_ledger(run_dir: Path, say: Say) -> None:
    say("optimiser", run__progress=0.5)
    result = fleet("status", "--run-dir", str(run_dir))
    assert result.exit_code == 0
    assert "optimiser-0" in result.output
    assert "it balances" in result.output


@pytest.mark.parametrize("command", [["status"], ["pause"], ["resume"], ["stop"], ["scale", "generator=2"]])
def test_a_run_that_nobody_works_on_is_refused(run_dir: Path, tmp_path: Path, say: Say, command: list[str]) -> None:
    say("optimiser", age_s=61.0)
    silent = fleet(*command, "--run-dir", str(run_dir))
    assert silent.exit_code == 2
    assert "nobody has reported for 60 s" in silent.output
    write_config(TuneConfig(), tmp_path / "config.toml")
    dead = fleet(*command, "--run-dir", str(tmp_path))
    assert dead.exit_code == 2
    assert "no embedded Redis of this machine answers; give --redis-url" in dead.output
    assert fleet(*command, "--run-dir", str(tmp_path / "nowhere")).exit_code == 2


def test_a_redis_of_ones_own_is_named_by_its_url(run_dir: Path, url: str, say: Say, tmp_path: Path) -> None:
    say("optimiser")
    write_config(TuneConfig(run_id="mine"), tmp_path / "config.toml")
    result = fleet("status", "--run-dir", str(tmp_path), "--redis-url", url)
    assert result.exit_code == 0
    assert "optimiser-0" in result.output
