"""Tables as text and Markdown."""

from __future__ import annotations

import numpy as np

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.reporting import Row, markdown_table, text_table

ROWS = [
    Row("teacher", {"NDCG@10": 0.16371, "nPCOUNT@10": 0.44}, {"NDCG@10": 0.0035}),
    Row("tuned", {"NDCG@10": 0.1392, "nPCOUNT@10": 0.1742, "ILD@10": float("nan")}),
]
NAMES = ("NDCG@10", "ILD@10", "nPCOUNT@10")


def test_text_is_aligned_and_shows_directions() -> None:
    assert text_table(ROWS, NAMES).splitlines() == [
        "Model    NDCG@10 ↑  ILD@10 ↑  nPCOUNT@10 ↓",
        "------------------------------------------",
        "teacher     0.1637         -        0.4400",
        "tuned       0.1392         -        0.1742",
    ]


def test_standard_errors_follow_where_there_are_any() -> None:
    lines = text_table(ROWS, ("NDCG@10",), with_errors=True).splitlines()
    assert lines[2].split() == ["teacher", "0.1637", "±", "0.0035"]
    assert lines[3].split() == ["tuned", "0.1392"]


def test_markdown_makes_the_best_of_each_direction_bold() -> None:
    assert markdown_table(ROWS, NAMES).splitlines() == [
        "| Model | NDCG@10 ↑ | ILD@10 ↑ | nPCOUNT@10 ↓ |",
        "| --- | ---: | ---: | ---: |",
        "| teacher | **0.1637** | - | 0.4400 |",
        "| tuned | 0.1392 | - | **0.1742** |",
    ]


def test_markdown_shares_the_bold_between_values_that_print_alike() -> None:
    rows = [Row("a", {"NDCG@10": 0.10001}), Row("b", {"NDCG@10": 0.10002}), Row("c", {"NDCG@10": 0.09})]
    assert markdown_table(rows, ("NDCG@10",)).count("**0.1000**") == 2


def test_a_single_row_is_not_bold() -> None:
    assert "**" not in markdown_table(ROWS[:1], NAMES)


def test_a_row_of_an_evaluation_has_its_means_and_errors() -> None:
    values, users = {"NDCG@10": np.array([0.0, 1.0])}, np.array(["u", "v"])
    table = EvaluationTable("m", 10, "hash", users, values, ranks=np.array([0, 1]), overall={}, n_invalid=0)
    # mean 1/2; variance (1/4 + 1/4) / 1, over 2 users: 1/4, whose root is 1/2
    assert Row.of(table, "teacher") == Row("m", {"NDCG@10": 0.5}, {"NDCG@10": 0.5}, "teacher")
