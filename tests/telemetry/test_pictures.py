from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gptrec_rl.config import TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.telemetry.history import RunHistory, Validation
from gptrec_rl.telemetry.pictures import DRAW_EVERY_S, PathPicture, draw_path, traded_metrics, validation_path
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MetricRecord


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def score(step: int) -> MetricRecord:
    values = {"val/version": step / 20, "val/reward": 0.5, "val/is_best": 1.0}
    metrics = {"val/ndcg@10": 0.1, "val/ild@10": 0.3, "val/npcount@10": 0.8}
    return MetricRecord("validator", 0, 1, step, 1000.0 + step, values | metrics)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_config(TuneConfig(goal="ndcg=1,ild=0.5"), tmp_path / "config.toml")
    return tmp_path


def n_pictures(run_dir: Path) -> int:
    return sum(file.read_bytes().count(b"IHDR") for file in run_dir.glob("tensorboard/pictures/*"))


def write(run_dir: Path, record: MetricRecord) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def test_what_is_traded_is_all_that_the_data_allow() -> None:
    assert traded_metrics({"NDCG@5": 0.1, "Recall@5": 0.2, "nPCOUNT@5": 1.0}) == ("NDCG@5", ["nPCOUNT@5"])
    assert traded_metrics({"ILD@5": 0.1, "NDCG@5": 0.1, "nPCOUNT@5": 1.0}) == ("NDCG@5", ["nPCOUNT@5", "ILD@5"])


def test_the_path_is_a_file_and_a_picture_of_tensorboard(run_dir: Path) -> None:
    history = RunHistory()
    history.add(score(20))
    history.add(score(40))
    picture = draw_path(run_dir, "ndcg=1,pcount=3", history)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert n_pictures(run_dir) == 1


def test_a_path_is_drawn_at_new_scores_once_a_minute(run_dir: Path) -> None:
    clock = Clock()
    picture = PathPicture(run_dir, clock)
    write(run_dir, score(20))
    picture.refresh()
    assert n_pictures(run_dir) == 0
    clock.now += DRAW_EVERY_S
    picture.refresh()
    picture.refresh()
    assert n_pictures(run_dir) == 1
    clock.now += DRAW_EVERY_S
    write(run_dir, score(40))
    picture.refresh()
    assert n_pictures(run_dir) == 2


def test_the_records_of_a_run_redraw_the_path_at_scores_alone(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptrec_rl.telemetry.pictures.DRAW_EVERY_S", 0.0)
    records = RunRecords(run_dir)
    records.append([score(20)], "1-0")
    records.append([MetricRecord("optimiser", 0, 1, 21, 1021.0, {"reward/mean": 0.5})], "2-0")
    assert n_pictures(run_dir) == 1


PATH = [
    Validation(
        step=20 * i,
        minutes=0.5 * i,
        reward=0.5,
        values={"NDCG@10": 0.15 - 0.001 * i, "ILD@10": 0.27 + 0.01 * i},
        errors={"NDCG@10": 0.01},
    )
    for i in range(12)
]


def test_validation_path_draws_both_metrics_and_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **kwargs: object) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    path = tmp_path / "path.png"
    validation_path(PATH, path, title="ndcg=1,ild=1")
    assert path.read_bytes().startswith(b"\x89PNG")
    accuracy, diversity, plane = drawn[0].axes[:3]
    assert list(accuracy.lines[0].get_ydata()) == [record.values["NDCG@10"] for record in PATH]
    assert list(diversity.lines[0].get_ydata()) == [record.values["ILD@10"] for record in PATH]
    assert {text.get_text() for text in plane.texts} == {"start", "end"}
    assert accuracy.xaxis.get_major_formatter()(100, 0) == "100\n2 min"  # step 100 is at 2.5 minutes, rounded to even


def test_a_single_validation_can_be_drawn(tmp_path: Path) -> None:
    validation_path(PATH[:1], tmp_path / "path.png")
    assert (tmp_path / "path.png").exists()
