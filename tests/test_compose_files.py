"""What `docker compose` reads agrees with itself and with the metric dictionary; tests/docker runs it for real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptrec_rl.telemetry.dictionary import DICTIONARY

ROOT = Path(__file__).parents[1]
COMPOSE = [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]
DASHBOARDS = sorted((ROOT / "monitoring").rglob("*.json"))
EXPORTED = {meaning.exported for meaning in DICTIONARY.values()}
OF_THE_EXPORTER = {"gptrec_redis_up", "gptrec_step", "gptrec_token", "gptrec_heard_timestamp_seconds"}


def expressions(value: object) -> Iterator[str]:
    """Yield every query in a dashboard."""
    if isinstance(value, dict):
        yield from (text for name, text in value.items() if name == "expr")
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from expressions(each)


def test_the_environment_file_names_every_variable_with_its_default() -> None:
    read = {
        name: default or ""
        for path in COMPOSE
        for name, default in re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", path.read_text())
        if default != "/dev/null"  # no file of one's own
    }
    offered = dict(re.findall(r"^# ([A-Z_]+)=(\S*)", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(offered) == set(read)
    shown = {name: default for name, default in read.items() if default}
    assert {name: offered[name] for name in shown} == shown


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_nothing_but_known_metrics(path: Path) -> None:
    queries = list(expressions(json.loads(path.read_text())))
    asked = set(re.findall(r"gptrec_\w+", " ".join(queries)))
    assert len(queries) > 20
    assert asked - EXPORTED - OF_THE_EXPORTER == set()


def test_alerts_ask_for_nothing_but_known_metrics() -> None:
    asked = set(re.findall(r"gptrec_\w+", (ROOT / "monitoring" / "rules.yml").read_text()))
    assert len(asked) > 4
    assert asked - EXPORTED - OF_THE_EXPORTER == set()


def test_the_exporters_own_metrics_are_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in OF_THE_EXPORTER if f"`{name}`" not in documented] == []


def test_every_service_is_confined() -> None:
    text = COMPOSE[0].read_text()
    blocks = re.split(r"\n  (?=[a-z]+:)", text[text.index("\nservices:") : text.index("\nnetworks:")])[1:]
    shared = text[text.index("x-fleet") : text.index("\nservices:")]
    for block in blocks:
        settings = shared if "<<: *fleet" in block else block
        assert "read_only: true" in settings, block
        assert "cap_drop: [ALL]" in settings, block
        assert "no-new-privileges:true" in settings, block
