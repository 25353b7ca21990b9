from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.data.sources.files import integer_rows, numbers_of, read_text, split_genres
from gptrec_rl.data.sources.items import read_catalogue
from gptrec_rl.errors import InputError


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_text_is_read_plain_or_packed(tmp_path: Path, suffix: str, pack: object) -> None:
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(pack("naïve\n".encode()))  # type: ignore[operator]
    assert read_text(path) == "naïve\n"


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("damage", [slice(0, -9), slice(3, None)])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, pack: object, damage: slice) -> None:
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(pack(b"some text\n" * 50)[damage])  # type: ignore[operator]
    with pytest.raises(InputError, match=rf"text\.txt{suffix}(, line 1: not utf-8|.*can't be read)"):
        read_text(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt can't be read"):
        read_text(tmp_path / "none.txt")


def test_the_line_that_is_not_in_the_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("fine\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv, line 2: not utf-8 text"):
        read_text(path)
    assert read_text(path, "latin-1") == "fine\ncafé\n"


def test_integer_rows_split_at_blanks_or_at_a_separator() -> None:
    assert integer_rows("1 2\n3 4\n", Path("f"), None, ("a", "b")).tolist() == [[1, 2], [3, 4]]
    assert integer_rows("1 2\r\n3 4\r\n", Path("f"), None, ("a", "b")).tolist() == [[1, 2], [3, 4]]
    assert integer_rows("1::2\n3::4", Path("f"), "::", ("a", "b")).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1 2\n3\n4 5\n", 2),
        ("1 2\n3 4 5\n", 2),
        ("1 2\n3 4\nfive 6\n", 3),
        ("1 2\n\n3 4\n", 2),
        ("1 2.5\n", 1),
        ("1 2\n3 -4.0\n", 2),
    ],
)
def test_the_first_malformed_line_is_named(text: str, line: int) -> None:
    with pytest.raises(InputError, match=rf"data\.txt, line {line}: .* is not `user item` in whole numbers"):
        integer_rows(text, Path("data.txt"), None, ("user", "item"))


def test_a_file_without_lines_is_refused() -> None:
    with pytest.raises(InputError, match="has no lines"):
        integer_rows("\n", Path("data.txt"), None, ("user", "item"))


def test_a_catalogue_needs_only_its_id_column(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item,price,maker,genres,title\na,1.5,x,War|Comedy,"Alpha, the first"\nb,,y,,Beta\n')
    catalogue = read_catalogue(path, "item")
    assert catalogue.item_ids.tolist() == ["a", "b"]
    assert catalogue.titles.tolist() == ["Alpha, the first", "Beta"]
    assert [catalogue.genres_of(item) for item in (1, 2)] == [["Comedy", "War"], []]
    assert list(catalogue.columns) == ["price", "maker"]
    np.testing.assert_array_equal(catalogue.columns["price"], [1.5, np.nan])
    path.write_text("item\na\n")
    assert read_catalogue(path, "item").titles.tolist() == ["a"]


def test_a_row_of_another_length_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item,title\na,"two\nlines"\nb\n')
    with pytest.raises(InputError, match=r"items\.csv, line 4: 'b' is not a row of 2 fields \(item,title\)"):
        read_catalogue(path, "item")


def test_blank_lines_of_an_item_table_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item,title\n\na,A\n\n")
    assert read_catalogue(path, "item").item_ids.tolist() == ["a"]


def test_a_field_that_never_ends_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item,title\na,A\nb,"B\n' + "c,C\n" * 50_000)
    with pytest.raises(InputError, match=r"items\.csv, line 3: unexpected end of data; is a quotation mark"):
        read_catalogue(path, "item")


def test_a_missing_id_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,title\na,A\n")
    with pytest.raises(InputError, match=r"items\.csv, line 1: no column 'item' among \['id', 'title'\]"):
        read_catalogue(path, "item")


def test_genres_are_split_trimmed_and_kept_once() -> None:
    assert split_genres(["War| Comedy |War", "", "|"]) == [["War", "Comedy"], [], []]


def test_that_a_film_has_no_genres_is_no_genre() -> None:
    assert split_genres(["(no genres listed)", "(no genres listed)|War"]) == [[], ["War"]]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2"], "i"),
        (["1", "2.50"], "f"),
        (["1", ""], "f"),
        (["1e-05", "1.2345678901e+16"], "f"),  # as Python prints floats
        (["1", "two"], None),
        (["007", "7"], None),
        (["18_24", "25_34"], None),
        (["1e5", "2e7"], None),
        (["+1", "2"], None),
        (["nan", "1.5"], None),
        (["inf", "1.5"], None),
        (["\u0661", "2"], None),  # an Arabic digit
        (["9223372036854775807", "0"], "i"),
        (["9223372036854775808", "0"], None),  # no int64, and a float would round it
        (["1700000000000000001", ""], None),
        (["", ""], None),
    ],
)
def test_a_column_is_numbers_only_if_all_of_it_is_written_as_numbers(cells: list[str], kind: str | None) -> None:
    numbers = numbers_of(cells, cells)
    assert (None if numbers is None else numbers.dtype.kind) == kind


def test_what_a_file_holds_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    for name, content in {"a.csv": gzip.compress(b"x"), "b.txt": lzma.compress(b"x"), "c.gz": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        assert read_text(tmp_path / name) == "x"
