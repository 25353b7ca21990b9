"""The alerts of `monitoring/rules.yml`, evaluated by `promtool` over made-up series; Debian's `prometheus` has it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

MONITORING = Path(__file__).parents[1] / "monitoring"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on the PATH (Debian: prometheus)")

# In promtool's notation a series has a value every five seconds: first + step x times.
STEP, PROGRESS = 'gptrec_step{role="optimiser",id="0"}', 'gptrec_run_progress_ratio{role="optimiser",id="0"}'
HEARD = 'gptrec_heard_timestamp_seconds{role="optimiser",id="0"}'
UP = {'up{job="gptrec"}': "1x2000", "gptrec_redis_up": "1x2000"}
LEARNS = {STEP: "0+1x2000", PROGRESS: "0+0.0001x2000", HEARD: "0+5x2000", **UP}
FELL_SILENT = {STEP: "0+1x120 120x1880", PROGRESS: "0.3x2000", HEARD: "0+5x120 600x1880", **UP}


def alerts(tmp_path: Path, series: Mapping[str, str], at_s: int) -> set[str]:
    """Return the alerts that fire at a time over series: those that a test which expects none complains of."""
    names = re.findall(r"- alert: (\w+)", (MONITORING / "rules.yml").read_text())
    test = {
        "interval": "5s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{at_s}s", "alertname": name, "exp_alerts": []} for name in names],
    }
    rules = {"rule_files": [str(MONITORING / "rules.yml")], "evaluation_interval": "15s", "tests": [test]}
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps(rules))
    done = subprocess.run([str(PROMTOOL), "test", "rules", file], capture_output=True, text=True, check=False)
    fired = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert bool(fired) == bool(done.returncode), done.stderr
    return fired


def test_a_fleet_that_learns_raises_none(tmp_path: Path) -> None:
    assert [alerts(tmp_path, LEARNS, at_s) for at_s in (0, 60, 600, 9000)] == [set()] * 4


def test_a_finished_run_raises_none_however_long_nobody_speaks(tmp_path: Path) -> None:
    assert alerts(tmp_path, {**FELL_SILENT, PROGRESS: "1x2000"}, 9000) == set()


@pytest.mark.parametrize("at_s", [930, 1200, 9000])
def test_an_optimiser_that_hangs_or_died_is_named_for_as_long_as_it_is_silent(tmp_path: Path, at_s: int) -> None:
    assert "ProcessIsSilent" in alerts(tmp_path, FELL_SILENT, at_s)


def test_so_is_a_validator(tmp_path: Path) -> None:
    silent = {'gptrec_heard_timestamp_seconds{role="validator",id="0"}': "0+5x120 600x1880"}
    assert alerts(tmp_path, {**LEARNS, **silent}, 9000) == {"ProcessIsSilent"}


def test_a_learner_that_reports_and_makes_no_step_stands_still(tmp_path: Path) -> None:
    waits = {**LEARNS, STEP: "0+1x120 120x1880"}
    assert alerts(tmp_path, waits, 870) == set()
    assert alerts(tmp_path, waits, 930) == {"LearnerStandsStill"}


def test_a_paused_learner_stands_still_as_it_was_told_to(tmp_path: Path) -> None:
    paused_for_half_an_hour = 'gptrec_wait_for_ratio{role="optimiser",id="0",what="resume"}'
    waits = {**LEARNS, STEP: "0+1x120 120x360 121+1x1520", paused_for_half_an_hour: "0x120 1x360 0x1520"}
    assert [alerts(tmp_path, waits, at_s) for at_s in (930, 2400, 2430, 9000)] == [set()] * 4
    hangs_behind_it = {**waits, STEP: "0+1x120 120x1880"}
    assert alerts(tmp_path, hangs_behind_it, 3000) == {"LearnerStandsStill"}


def test_an_optimiser_that_never_came_is_missed(tmp_path: Path) -> None:
    assert [alerts(tmp_path, UP, at_s) for at_s in (240, 360)] == [set(), {"OptimiserNeverCame"}]


def test_an_exporter_and_a_redis_that_are_away_are_said_so(tmp_path: Path) -> None:
    assert alerts(tmp_path, {**LEARNS, 'up{job="gptrec"}': "1x60 0x900"}, 400) == {"ExporterIsAway"}
    assert alerts(tmp_path, {**LEARNS, "gptrec_redis_up": "1x60 0x900"}, 400) == {"RedisIsAway"}
