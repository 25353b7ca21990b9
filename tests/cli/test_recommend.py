from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from gptrec_rl import metrics
from gptrec_rl.cli.recommend import _item, _split_ids
from gptrec_rl.data import Catalogue
from gptrec_rl.data.texts import text_array
from gptrec_rl.decoding import NextK, TopK
from gptrec_rl.models.markov import MarkovChain, PopularityRecommender

Run = Callable[..., Result]


def ids(result: Result, which: str = "items") -> list[str]:
    assert result.exit_code == 0, result.output
    return [item["item"] for item in json.loads(result.stdout)[which]]


def external(world: Any, items: np.ndarray) -> list[str]:
    return [str(world.interactions.catalogue.item_ids[item - 1]) for item in items]


def test_a_user_gets_a_list_for_the_whole_history(run: Run, world: Any) -> None:
    history = world.interactions.histories[2]
    user = world.interactions.user_ids[2]
    result = run("recommend", "--model", world.policy_folder, "--user", user, "--precision", "fp32", "--json")
    slates = NextK(world.policy, "fp32").recommend([history], 10)
    assert ids(result) == external(world, slates.items[0])
    assert ids(result, "history") == external(world, history)
    shown = json.loads(result.stdout)
    assert shown["user"] == user
    assert shown["ild"] == pytest.approx(metrics.ild(slates.items, world.interactions.catalogue.genres, 10)[0])
    assert [item["score"] for item in shown["items"]] == pytest.approx(slates.scores[0].tolist())
    first = int(slates.items[0, 0])
    assert shown["items"][0]["genres"] == world.interactions.catalogue.genres_of(first)


def test_people_see_titles_and_genres(run: Run, world: Any) -> None:
    catalogue = world.interactions.catalogue
    history = world.interactions.histories[0]
    lines = run("recommend", "--model", "markov", "--user", "1", "--k", "3").stdout.splitlines()
    assert lines[0] == f"User 1 has {len(history)} items; the last ones:"
    last = lines.index("") + 7  # header, ruler, the last five
    assert lines[last].split()[0] == external(world, history)[-1]
    assert catalogue.title(int(history[-1])) in lines[last]
    best = MarkovChain(world.split).recommend([history], 3).items[0]
    for line, rank, item in zip(lines[-3:], "123", best, strict=True):
        assert line.split()[:2] == [rank, external(world, [item])[0]]
        assert f"{catalogue.title(item)} " in line
        assert "|".join(catalogue.genres_of(item)) in line


def test_a_history_of_item_ids_and_none(run: Run, world: Any) -> None:
    given = run("recommend", "--model", world.policy_folder, "--history", "3, 1,4", "--strategy", "top-k", "--json")
    assert ids(given, "history") == ["3", "1", "4"]
    catalogue = world.interactions.catalogue
    read = [catalogue.internal(item) for item in "314"]
    assert set(ids(given)) == set(external(world, TopK(world.policy).recommend([read], 10).items[0]))
    new = run("recommend", "--model", "popularity", "--history", "", "--json")
    assert ids(new) == external(world, PopularityRecommender(world.split).recommend([[]], 10).items[0])
    assert "This history is new" in run("recommend", "--model", "popularity", "--history", "").stdout


def test_only_allowed_items(run: Run, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed.txt"
    allowed.write_text("7\n\n 9 \n11\n")
    result = run("recommend", "--model", "markov", "--history", "9", "--k", 2, "--allowed", allowed, "--json")
    assert sorted(ids(result)) == ["11", "7"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_everybody_into_a_file(run: Run, world: Any, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new" / f"lists.{suffix}"
    result = run("recommend", "--model", "markov", "--all", "--out", out, "--k", 4)
    assert "wrote 240 rows: 4 items for each of 60 users" in result.stdout
    frame = pd.read_csv(out, dtype={"item": str, "user": str}) if suffix == "csv" else pd.read_parquet(out)
    assert list(frame.columns) == ["user", "rank", "item", "title", "genres", "score"]
    slates = MarkovChain(world.split).recommend(world.interactions.histories, 4)
    assert frame["item"].tolist() == external(world, slates.items.ravel())
    assert frame["user"].tolist() == np.repeat(world.interactions.user_ids, 4).tolist()
    assert frame["rank"].tolist() == [1, 2, 3, 4] * 60
    np.testing.assert_allclose(frame["score"], slates.scores.ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --user, --history and --all"),
        (["--user", "1", "--history", "2"], "give one of --user, --history and --all"),
        (["--user", "1", "--out", "x.csv"], "--all and --out go together"),
        (["--all"], "--all and --out go together"),
        (["--user", "nobody"], "unknown user 'nobody'"),
        (["--history", "1,999"], "unknown item '999'"),
        (["--history", "1,,2"], "unknown item ''"),
        (["--history", "1\n2"], "--history can't be read"),
        (["--all", "--out", "lists.txt"], "has suffix '.txt'; name it .csv or .parquet"),
        (["--all", "--out", "/dev/null/lists.csv"], "can't be written"),
        (["--user", "1", "--allowed", "missing.txt"], "--allowed missing.txt can't be read"),
    ],
)
def test_bad_input_is_named(run: Run, arguments: list[str], message: str) -> None:
    result = run("recommend", "--model", "markov", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["lists.csv", "lists.PARQUET"])
def test_who_has_few_items_left_gets_a_shorter_list_and_everybody_else_a_whole_one(
    run: Run, world: Any, tmp_path: Path, name: str
) -> None:
    interactions, allowed = world.interactions, tmp_path / "allowed.txt"
    few = interactions.histories[0][:2]  # of which the first user has both
    others = [item for item in range(1, 61) if item not in interactions.histories[0]][:3]
    allowed.write_text("\n".join(external(world, [*few, *others])))
    result = run("recommend", "--model", "markov", "--all", "--out", tmp_path / name, "--k", 4, "--allowed", allowed)
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(tmp_path / name, dtype=str) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
    n_left = [5 - len(set(history) & {*few, *others}) for history in interactions.histories]
    lengths = [min(n, 4) for n in n_left]
    assert frame["user"].tolist() == np.repeat(interactions.user_ids.astype(object), lengths).tolist()
    assert set(frame[frame["user"] == "1"]["item"]) == set(external(world, others))
    assert f"({sum(n < 4 for n in n_left)} have fewer left, and shorter lists)" in result.output
    assert frame["rank"].astype(int).tolist() == [rank for n in lengths for rank in range(1, n + 1)]


@pytest.mark.parametrize("name", ["lists.csv", "lists.parquet"])
def test_a_file_for_everybody_is_whole_or_as_it_was(
    run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptrec_rl.recommender.MOST_USERS", 7)
    monkeypatch.setattr("gptrec_rl.reporting.table_files.ROWS_TOGETHER", 50)
    command = ("recommend", "--model", "popularity", "--all", "--out", tmp_path / name, "--k", 4)
    assert run(*command).exit_code == 0
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    assert len(read(tmp_path / name)) == 240  # 35 batches' parts, one after the other
    before = (tmp_path / name).read_bytes()
    calls = iter(range(99))

    def fails(self: PopularityRecommender, *_: Any) -> None:
        if next(calls) > 3:
            raise RuntimeError("out of luck")
        return recommend(self, *_)

    recommend = PopularityRecommender.recommend
    monkeypatch.setattr(PopularityRecommender, "recommend", fails)
    assert run(*command).exit_code == 1
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["lists.csv", "lists.parquet"])
def test_a_file_whose_last_part_was_just_written_is_whole(
    run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptrec_rl.reporting.table_files.ROWS_TOGETHER", 240)  # all rows there are
    assert run("recommend", "--model", "popularity", "--all", "--out", tmp_path / name, "--k", 4).exit_code == 0
    assert len((pd.read_csv if name.endswith("csv") else pd.read_parquet)(tmp_path / name)) == 240


def test_an_unknown_allowed_item_is_named_with_its_line(run: Run, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed.txt"
    allowed.write_text("7\nseven\n")
    result = run("recommend", "--model", "markov", "--user", "1", "--allowed", allowed)
    assert "allowed.txt, line 2: unknown item 'seven'" in result.stderr


def test_no_such_model(run: Run) -> None:
    assert "there is no model 'marcov'" in run("recommend", "--model", "marcov", "--user", "1").stderr


def test_who_has_few_items_left_gets_a_shorter_list_by_name(run: Run, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed.txt"
    allowed.write_text("\ufeff7\r\n9\r\n", encoding="utf-8")
    result = run("recommend", "--model", "markov", "--history", "9", "--k", 2, "--allowed", allowed, "--json")
    assert ids(result) == ["7"]
    assert "only 1 items are left for this history" in result.stderr
    nothing = run("recommend", "--model", "markov", "--history", "7,9,9", "--allowed", allowed)
    assert nothing.exit_code == 2
    assert "nothing is left to recommend to this history" in nothing.stderr


def test_ids_are_read_as_they_stand() -> None:
    ids_of_items = text_array(["x, y", "b ", "b", "p\u2028q"])
    catalogue = Catalogue(ids_of_items, ids_of_items, (), np.zeros((4, 0), dtype=bool))
    assert [_item(text, catalogue) for text in _split_ids('"x, y",b ,b, b')] == [1, 2, 3, 3]
    assert _item("p\u2028q", catalogue) == 4
