from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest

from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.dictionary import DICTIONARY, Described, Range, describe, table
from gptrec_rl.transport.cache import Ledger

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
CONSTANTS = {value for name, value in vars(names).items() if name.isupper()}


@pytest.mark.parametrize(
    "name", [*sorted(CONSTANTS), names.reward("mine:new"), names.validation("ndcg", 10), "val/ndcg@10/error"]
)
def test_every_name_is_in_the_dictionary(name: str) -> None:
    assert describe(name) is not None


def test_every_column_of_the_ledger_is_in_the_dictionary() -> None:
    assert [f"cache/{column.name}" for column in fields(Ledger) if f"cache/{column.name}" not in DICTIONARY] == []


def test_the_dictionary_has_no_name_that_nobody_reports() -> None:
    patterns = {names.reward("<metric>"), "wait/<what>", "val/<metric>@<k>", "val/<metric>@<k>/error"}
    assert set(DICTIONARY) - CONSTANTS == patterns


def test_functions_that_are_not_in_the_dictionary_are_noticed() -> None:
    functions = {name for name, value in vars(names).items() if callable(value)}
    assert functions == {"reward", "validation"}


def test_the_document_holds_the_dictionary_as_it_is() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").endswith(table()), (
        "docs/metrics.md is out of date: replace its tables by `python -m gptrec_rl.telemetry.dictionary`"
    )


def test_patterns_name_their_parts() -> None:
    ndcg = {"metric": "ndcg", "k": "10"}
    assert describe("val/ndcg@10") == Described(DICTIONARY["val/<metric>@<k>"], ndcg)
    assert describe("val/ndcg@10/error") == Described(DICTIONARY["val/<metric>@<k>/error"], ndcg)
    assert describe("reward/mine:new") == Described(DICTIONARY["reward/<metric>"], {"metric": "mine:new"})


def test_a_constant_goes_before_a_pattern_and_a_stranger_is_none() -> None:
    found = describe(names.REWARD_MEAN)
    assert found is not None
    assert found.meaning.exported == "gptrec_reward_mean"
    assert describe("reward") is None
    assert describe("val/ndcg@10/errors") is None


def test_names_in_prometheus_are_valid_distinct_and_counters_end_in_total() -> None:
    exported = [meaning.exported for meaning in DICTIONARY.values()]
    assert len(set(exported)) == len(exported)
    assert all(name.startswith("gptrec_") and name.replace("_", "").isalnum() for name in exported)
    assert all(meaning.exported.endswith("_total") == (meaning.kind == "counter") for meaning in DICTIONARY.values())


def test_a_range_holds_its_ends_and_says_what_it_is() -> None:
    assert 0.0 in Range(0, 0.1)
    assert 0.1 in Range(0, 0.1)
    assert 0.11 not in Range(0, 0.1)
    assert math.nan not in Range(0, 0.1)
    assert [str(each) for each in (Range(0, 0.1), Range(0, 0), Range(low=0.5))] == ["0 to 0.1", "0", "at least 0.5"]
