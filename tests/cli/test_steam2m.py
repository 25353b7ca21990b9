"""The rows of experiments/steam2m on real product ids, tags and day-level ties, at tiny size."""

from __future__ import annotations

import csv
import io
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result

from gptrec_rl.cli import main
from gptrec_rl.data import Interactions

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SMALL = {"n_layers": 1, "n_heads": 2, "width": 16, "history_length": 12}
STEPS = {"max_steps": 2, "precision": "fp32", "batch_size": 16, "model": SMALL}
BUDGETS = {
    "popularity": {},
    "sasrec": STEPS,
    "gptrec-supervised-markov": STEPS,
    "gptrec-diversity-1.0": {"steps": 1, "precision": "fp32", "fleet": {"n_histories": 4, "n_lists": 2}},
}


@pytest.fixture
def steam2m(real_steam: Interactions, tmp_path: Path) -> Path:
    """Return the set with four of its rows and budgets of few steps; tuning starts from the Markov chain's student."""
    folder = tmp_path / "steam2m"
    folder.mkdir()
    shutil.copy(EXPERIMENTS / "published.toml", tmp_path)
    shutil.copy(EXPERIMENTS / "steam2m" / "dataset.toml", folder)
    real_steam.save(tmp_path / "steam.npz")
    for row_id, budget in BUDGETS.items():
        row = tomllib.loads((EXPERIMENTS / "steam2m" / f"{row_id}.toml").read_text())
        if "tune" in row:
            row["tune"] |= {"student": "gptrec-supervised-markov", "serial": True}
        (folder / f"{row_id}.toml").write_text(tomli_w.dumps(row | {"budgets": {"cpu": budget}} if budget else row))
    return folder


def test_real_games_go_through_rows_and_table(steam2m: Path) -> None:
    def experiment(command: str, *options: str) -> Result:
        places = ["--results", str(steam2m.parent / "results"), "--runs", str(steam2m.parent / "runs")]
        data = ["--data", str(steam2m.parent / "steam.npz")] if command == "run" else []
        return CliRunner().invoke(main, ["experiment", command, str(steam2m), *places, *data, *options])

    made = experiment("run")
    assert made.exit_code == 0, made.output
    table = experiment("table", "--format", "csv")
    assert table.exit_code == 0, table.output
    lines = list(csv.DictReader(io.StringIO(table.output)))
    popularity = {line["metric"]: line for line in lines if line["model"] == "Popularity"}
    assert popularity["NDCG@10"]["published"] == "0.0368"  # beside ours
    assert float(popularity["nPCOUNT@10"]["value"]) == pytest.approx(1.0)
    assert {line["state"] for line in lines} == {"run"}
