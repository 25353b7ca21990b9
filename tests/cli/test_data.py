from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptrec_rl.cli.data import data
from gptrec_rl.data import Interactions
from gptrec_rl.errors import InputError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)


def test_stats_of_movielens_are_table_2(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ml-1m.npz"
    prepared = run("prepare", "ml1m", "--path", shared_data / "ml-1m", "--out", out)
    assert prepared.exit_code == 0
    shown = run("stats", "--data", out).output
    for fact in ("6,040", "3,416", "999,611", "165.50", "96", "0.95", "18"):
        assert fact in shown.split()
    assert shown in prepared.output


def test_stats_as_json_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "world.npz"
    size = ("--users", 30, "--items", 60, "--mean-length", 8, "--genres", 3)
    assert run("prepare", "synthetic", *size, "--seed", 3, "--out", out).exit_code == 0
    monkeypatch.setenv("GPTREC_DATA", str(out))
    facts = json.loads(run("stats", "--json").output)
    assert (facts["name"], facts["users"], facts["items"], facts["genres"]) == ("synthetic", 30, 60, 3)
    assert facts["hash"] == Interactions.load(out).hash


def test_a_table_is_prepared_with_its_options_and_what_was_dropped_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("who,item,when,genres\n1,x,1,War\n1,y,2,War\n1,x,3,War\n1,z,4,\n2,x,1,War\n")
    names = ("--user-column", "who", "--timestamp-column", "when")
    out = tmp_path / "log.npz"
    prepared = run("prepare", "table", log, *names, "--keep", "first", "--drop-ungenred", "--out", out)
    assert "read 5 rows; dropped 1 repeats of a user and item, 1 users and 1 items" in prepared.output
    interactions = Interactions.load(out)
    assert interactions.user_ids.tolist() == ["1"]
    assert interactions.catalogue.item_ids[interactions.histories[0] - 1].tolist() == ["x", "y"]


@pytest.mark.parametrize("options", [(), ("--path", "a", "--fetch", "b")])
def test_movielens_is_either_given_or_fetched(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run("prepare", "ml1m", *options, "--out", tmp_path / "x.npz")
    assert result.exit_code == 2
    assert "give either --path" in result.output


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = "import sys, gptrec_rl.cli.data; print({'numpy', 'pyarrow', 'torch', 'tqdm'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_what_is_no_data_file_is_never_written_over(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,timestamp\n1,x,1\n1,y,2\n1,z,3\n")
    refused = run("prepare", "table", log, "--out", log)
    assert refused.exit_code == 2
    assert "exists and is no prepared data file" in refused.output
    assert log.read_text().startswith("user,item")
    for _ in range(2):  # an earlier one is replaced
        assert run("prepare", "table", log, "--out", tmp_path / "log.npz").exit_code == 0


@pytest.mark.parametrize("place", ["log.csv/x.npz", "nothing/../log.csv/y/z.npz"])
def test_a_place_that_cannot_be_written_is_named_before_anything_is_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "log.csv").write_text("nothing that could be read")
    with pytest.raises(InputError, match=r"--out .* can't be written"):
        run("prepare", "table", tmp_path / "log.csv", "--out", tmp_path / place)


def test_a_report_that_is_no_text_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "notes.md"
    document.write_bytes("für mich".encode("latin-1"))
    refused = run("stats", "--data", tmp_path / "missing.npz", "--report", document)
    assert "is no document in UTF-8" in " ".join(refused.output.split())
