"""Pictures: the front by hand and by brute force, and PNGs that are written with what they should show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from gptrec_rl.reporting.figures import Sweep, pareto_front, trade_off
from gptrec_rl.reporting.labels import LED_FROM
from gptrec_rl.reporting.tables import Row

ROWS = [
    Row("Markov chain", {"NDCG@10": 0.16, "ILD@10": 0.27, "nPCOUNT@10": 0.44}, {"NDCG@10": 0.004}, "teacher"),
    Row("student", {"NDCG@10": 0.15, "ILD@10": 0.28, "nPCOUNT@10": 0.43}, {}, "student"),
    Row("ild=1", {"NDCG@10": 0.11, "ILD@10": 0.45, "nPCOUNT@10": 0.45}, {"ILD@10": 0.002}, "tuned"),
    Row("no genres", {"NDCG@10": 0.14, "ILD@10": float("nan"), "nPCOUNT@10": 0.27}, {}, "tuned"),
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep each figure that is saved, to look into."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **kwargs: object) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_front_by_hand() -> None:
    # (1, 3), (2, 2) and (3, 1) stand; (1, 2) and (2, 1) are beaten; of the twins (3, 1) the first counts
    xs, ys = [1, 3, 2, 1, 2, 3], [3, 1, 2, 2, 1, 1]
    assert pareto_front(xs, ys) == [0, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12, unique=True))
def test_front_agrees_with_brute_force(points: list[tuple[int, int]]) -> None:
    expected = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    front = pareto_front([x for x, _ in points], [y for _, y in points])
    assert {points[i] for i in front} == expected
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_trade_off_draws_each_model_where_it_is_defined(tmp_path: Path, drawn: list[Figure]) -> None:
    path = tmp_path / "new" / "trade_off.png"
    trade_off(ROWS, path, across=("ILD@10", "nPCOUNT@10"), title="both")
    assert path.read_bytes().startswith(b"\x89PNG")
    diversity, popularity = drawn[0].axes
    assert {text.get_text() for text in diversity.texts} == {"Markov chain", "student", "ild=1"}
    assert {text.get_text() for text in popularity.texts} == {row.name for row in ROWS}


def test_better_is_always_to_the_right(tmp_path: Path, drawn: list[Figure]) -> None:
    trade_off(ROWS, tmp_path / "a.png", across=("ILD@10", "nPCOUNT@10"))
    diversity, popularity = drawn[0].axes
    assert not diversity.xaxis_inverted()
    assert popularity.xaxis_inverted()
    front = next(line for line in popularity.lines if line.get_label() == "Pareto front")
    assert list(front.get_xdata()) == [0.44, 0.43, 0.27]  # teacher, student, "no genres"; ild=1 is beaten by all


def test_names_cover_neither_each_other_nor_points(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [Row(f"model {i}", {"NDCG@10": 0.1 + 0.01 * (i % 3), "ILD@10": 0.3 + 0.02 * i}, {}, "g") for i in range(8)]
    trade_off(rows, tmp_path / "a.png")
    (panel,) = drawn[0].axes
    boxes = [text.get_window_extent() for text in panel.texts]
    points = panel.transData.transform([(row.values["ILD@10"], row.values["NDCG@10"]) for row in rows])
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_a_name_lies_on_no_curve_and_one_far_from_its_point_has_a_line_to_it(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    def at(x: float, y: float, name: str = "") -> Row:
        return Row(name, {"NDCG@10": y, "ILD@10": x}, {}, "g")

    # Two steep curves with few points, and a long name between them, where there is no room for it.
    curves = [Sweep(f"curve {x}", [at(x, 0.2), at(x + 0.01, 0.1)]) for x in (0.28, 0.31)]
    row = at(0.3, 0.15, "a model with a name so long that it has no room between the two")
    trade_off([row, at(0.1, 0.05, "b"), at(0.5, 0.05, "c")], tmp_path / "a.png", sweeps=curves)
    (panel,) = drawn[0].axes
    (name,) = [text for text in panel.texts if text.get_text() == row.name]
    lines = [(x + 0.01 * share / 99, 0.2 - 0.1 * share / 99) for x in (0.28, 0.31) for share in range(100)]
    assert not any(name.get_window_extent().contains(*point) for point in panel.transData.transform(lines))
    leads = [text for text in panel.texts if not text.get_text()]
    is_far = math.hypot(*name.get_position()) >= LED_FROM
    assert [lead.xy for lead in leads] == ([(0.3, 0.15)] if is_far else [])
