from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptrec_rl.data import Interactions
from gptrec_rl.data.sources.table import Columns, Filters, PreparationReport, read_table
from gptrec_rl.errors import InputError

LOG = """user,item,timestamp,title,genres,price
ann,x,30,Xylo,War|Comedy,2.5
ann,y,10,Yarn,War,
bob,y,20,Yarn again,Drama,9
bob,x,10,Xylo,War,2.5
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def histories_by_id(interactions: Interactions) -> dict[str, list[str]]:
    item_ids = interactions.catalogue.item_ids
    return {
        str(user): [str(item_ids[item - 1]) for item in history]
        for user, history in zip(interactions.user_ids, interactions.histories, strict=True)
    }


def test_a_csv_is_ordered_by_time_and_describes_its_items_by_their_first_rows(tmp_path: Path) -> None:
    interactions, report = read_table(write(tmp_path / "log.csv", LOG))
    catalogue = interactions.catalogue
    assert histories_by_id(interactions) == {"ann": ["y", "x"], "bob": ["x", "y"]}
    assert catalogue.titles.tolist() == ["Xylo", "Yarn"]
    assert [catalogue.genres_of(item) for item in (1, 2)] == [["Comedy", "War"], ["War"]]
    np.testing.assert_array_equal(catalogue.columns["price"], [2.5, np.nan])
    assert interactions.name == "log"
    assert report == PreparationReport(rows=4, repeats_dropped=0, users_dropped=0, items_dropped=0)


def test_a_packed_csv_and_a_parquet_file_give_the_same(tmp_path: Path) -> None:
    plain, _ = read_table(write(tmp_path / "log.csv", LOG))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(LOG.encode()))
    packed, _ = read_table(tmp_path / "log.csv.gz")
    rows = [line.split(",") for line in LOG.splitlines()]
    columns: dict[str, list[object]] = dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))
    columns["timestamp"] = [30, 10, 20, 10]
    columns["price"] = [2.5, None, 9.0, 2.5]
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    parquet, _ = read_table(tmp_path / "log.parquet")
    assert plain.hash == packed.hash == parquet.hash


def test_title_genres_and_further_columns_may_be_absent(tmp_path: Path) -> None:
    interactions, _ = read_table(write(tmp_path / "log.csv", "user,item,timestamp\n1,7,1\n1,8,2\n"))
    assert interactions.catalogue.titles.tolist() == ["7", "8"]
    assert interactions.catalogue.genre_names == ()
    assert interactions.catalogue.columns == {}


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    text = "who,what,when,name,kinds\n1,7,2,Seven,War\n1,8,1,Eight,War\n"
    names = Columns(user="who", item="what", timestamp="when", title="name", genres="kinds")
    interactions, _ = read_table(write(tmp_path / "log.csv", text), columns=names)
    assert histories_by_id(interactions) == {"1": ["8", "7"]}
    assert interactions.catalogue.titles.tolist() == ["Seven", "Eight"]
    assert interactions.catalogue.columns == {}


@pytest.mark.parametrize(("keep", "expected"), [("last", ["y", "z", "x"]), ("first", ["x", "y", "z"])])
def test_repeats_of_a_user_and_item_are_dropped_and_counted(tmp_path: Path, keep: str, expected: list[str]) -> None:
    text = "user,item,timestamp\n1,x,1\n1,y,2\n1,z,3\n1,x,4\n1,x,2\n"
    interactions, report = read_table(write(tmp_path / "log.csv", text), filters=Filters(keep=keep))  # type: ignore[arg-type]
    assert histories_by_id(interactions) == {"1": expected}
    assert (report.rows, report.repeats_dropped) == (5, 2)


def test_equal_timestamps_keep_the_order_of_the_file(tmp_path: Path) -> None:
    text = "user,item,timestamp\n" + "".join(f"1,{item},5\n" for item in "qwertzuiop")
    assert histories_by_id(read_table(write(tmp_path / "log.csv", text))[0]) == {"1": list("qwertzuiop")}


def test_users_and_items_with_few_interactions_are_dropped_until_all_have_enough(tmp_path: Path) -> None:
    # Item z has one row and goes; then user 3 has one left (x) and goes; then item w (users 1 and 3) has one and goes.
    pairs = ["1x", "1y", "1w", "2x", "2y", "3z", "3w"]
    text = "user,item,timestamp\n" + "".join(f"{user},{item},{time}\n" for time, (user, item) in enumerate(pairs))
    filters = Filters(min_user_interactions=2, min_item_interactions=2)
    interactions, report = read_table(write(tmp_path / "log.csv", text), filters=filters)
    assert histories_by_id(interactions) == {"1": ["x", "y"], "2": ["x", "y"]}
    assert report == PreparationReport(rows=7, repeats_dropped=0, users_dropped=1, items_dropped=2)


def test_items_without_genres_can_be_dropped(tmp_path: Path) -> None:
    text = "user,item,timestamp,genres\n1,x,1,War\n1,y,2,\n1,z,3,Drama\n2,y,1,\n2,x,2,War\n"
    path = write(tmp_path / "log.csv", text)
    interactions, report = read_table(path, filters=Filters(drop_ungenred=True))
    assert histories_by_id(interactions) == {"1": ["x", "z"]}  # user 2 has one item left
    assert (report.users_dropped, report.items_dropped) == (1, 1)
    interactions.catalogue.require_genres()


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 2 interactions is left"):
        read_table(write(tmp_path / "log.csv", "user,item,timestamp\n1,x,1\n2,x,1\n"))


def test_an_items_file_describes_the_items(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", "item,title,genres,year\nz,Zed,War,1\ny,Yarn,Drama,2\nx,Xylo,Comedy,3\n")
    interactions, _ = read_table(write(tmp_path / "log.csv", "user,item,timestamp\n1,x,1\n1,y,2\n"), items)
    catalogue = interactions.catalogue
    assert catalogue.titles.tolist() == ["Xylo", "Yarn"]
    assert catalogue.genre_names == ("Comedy", "Drama")
    assert catalogue.columns["year"].tolist() == [3, 2]


def test_an_item_that_the_items_file_lacks_is_named_by_its_line(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", "item,title\nx,Xylo\n")
    with pytest.raises(InputError, match=r"log\.csv, line 3: '1,y,2' is not about an item of .*items\.csv"):
        read_table(write(tmp_path / "log.csv", "user,item,timestamp\n1,x,1\n1,y,2\n"), items)


@pytest.mark.parametrize(
    "times",
    [
        ["2015-02-24", "2015-02-25", "2016-01-01"],
        ["2015-02-24T10:00:00", "2015-02-24 12:30:00", "2015-02-24T13:00:00.5"],
        ["2015-02-24T10:00:00+02:00", "2015-02-24T09:00:00Z", "2015-02-24T10:00:00"],  # 8, 9 and 10 o'clock UTC
        ["9", "10", "100"],
        ["-1.5", "0", "1e3"],
        ["1700000000000000001", "1700000000000000002", "1700000000000000003"],  # too close for a float
    ],
)
def test_times_are_numbers_or_iso_dates(tmp_path: Path, times: list[str]) -> None:
    first, second, third = times
    text = f"user,item,timestamp\n1,c,{third}\n1,b,{second}\n1,a,{first}\n"
    assert histories_by_id(read_table(write(tmp_path / "log.csv", text))[0]) == {"1": ["a", "b", "c"]}


@pytest.mark.parametrize(
    "times",
    [
        [datetime(2015, 2, 25, tzinfo=UTC), datetime(2015, 2, 24, tzinfo=UTC)],
        [date(2015, 2, 25), date(2015, 2, 24)],
        pa.array([1_700_000_000_000_000_002, 1_700_000_000_000_000_001], pa.timestamp("ns")),  # one microsecond
        [2.5, 1.5],
        ["2015-02-25", "2015-02-24"],
    ],
)
def test_parquet_times_may_be_dates_and_ids_numbers(tmp_path: Path, times: list[object] | pa.Array) -> None:
    pq.write_table(pa.table({"user": [1, 1], "item": [70, 80], "timestamp": times}), tmp_path / "log.parquet")
    assert histories_by_id(read_table(tmp_path / "log.parquet")[0]) == {"1": ["80", "70"]}


def test_parquet_times_of_another_type_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 1], "item": [70, 80], "timestamp": [[1], [2]]}), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"log\.parquet: column 'timestamp' has type list.*neither numbers nor text"):
        read_table(tmp_path / "log.parquet")


def test_parquet_times_of_the_day_alone_are_refused(tmp_path: Path) -> None:
    times = pa.array([3600, 7200], pa.time32("s"))
    pq.write_table(pa.table({"user": [1, 1], "item": [70, 80], "timestamp": times}), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"log\.parquet, row 1: '1,70,01:00:00' is not a row with an ISO 8601 date"):
        read_table(tmp_path / "log.parquet")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,x,1", "1,y"], "line 3: '1,y' is not a row of 3 fields"),
        (["1,x,1", "1,y,2,3"], "line 3: '1,y,2,3' is not a row of 3 fields"),
        (["1,x,1", "", "1,y"], "line 4: '1,y' is not a row of 3 fields"),
        (["1,x,1", "1,y,soon"], "line 3: '1,y,soon' is not a row whose time is a number"),
        (["1,x,1", "1,y,nan"], "line 3: '1,y,nan' is not a row whose time is a number"),
        (["1,x,1", "1,y,"], "line 3: '1,y,' is not a row whose time is a number"),
        (["1,x,2015-02-24", "1,y,24.2.2015"], "line 3: '1,y,24.2.2015' is not a row with an ISO 8601 date"),
        (["1,x,1", "", ",y,2"], "line 4: ',y,2' is not a row with a value in column 'user'"),
        (
            ["1,x,1", '1,"two\nlines",2', "1,,2"],
            "line 3: '1,two.*lines,2' is not a row whose column 'item' is one line",
        ),
        ([], "has no rows"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=rf"log\.csv,? {message}"):
        read_table(write(tmp_path / "log.csv", "\n".join(["user,item,timestamp", *lines]) + "\n"))


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user,item,timestamp\n1,x,1\n1,café,2\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"log\.csv, line 3: not utf-8"):
        read_table(path)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user,item,timestamp\n1,x,1\n1,y,2\n".encode("utf-8-sig"))
    assert histories_by_id(read_table(path)[0]) == {"1": ["x", "y"]}


def test_a_quotation_mark_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    text = 'user,item,timestamp\n1,x,1\n1,"y,2\n' + "2,z,3\n" * 50_000
    with pytest.raises(InputError, match=r"log\.csv, line 3"):
        read_table(write(tmp_path / "log.csv", text))


def test_a_column_that_occurs_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.csv, line 1: column 'item' occurs more than once"):
        read_table(write(tmp_path / "log.csv", "user,item,item,timestamp\n1,x,y,1\n"))


def test_a_missing_column_names_the_option(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,product,timestamp\n1,x,1\n")
    with pytest.raises(InputError, match=r"log\.csv, line 1: no column 'item' among .*'product'.*--item-column"):
        read_table(path)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} can't be read"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["empty.csv", "text.parquet"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} can't be read as"):
        read_table(write(tmp_path / name, "" if name == "empty.csv" else "text"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"timestamp": [1, None]}, r"row 2: '1,y,None.*' is not a row with a time in column 'timestamp'"),
        ({"timestamp": [1.0, float("nan")]}, r"row 2: .* is not a row whose time is a number"),
        ({"user": ["1", None]}, r"row 2: .* is not a row with a value in column 'user'"),
        ({"tags": [["a"], ["b"]]}, r"column 'tags' has type list.*convert it or leave it out"),
    ],
)
def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path, column: dict[str, list[object]], message: str) -> None:
    columns: dict[str, list[object]] = {"user": ["1", "1"], "item": ["x", "y"], "timestamp": [1, 2], **column}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=rf"log\.parquet[,:] {message}"):
        read_table(tmp_path / "log.parquet")


def parquet(path: Path, **columns: object) -> Path:
    """Write a log in which user 1 has items a, b and user 2 too, with some columns put in."""
    plain = {"user": ["1", "1", "2", "2"], "item": ["a", "b", "a", "b"], "timestamp": [1, 2, 3, 4]}
    pq.write_table(pa.table({**plain, **columns}), path)
    return path


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01 00:00:00.000000100", "2024-01-01 00:00:00.000000200", "2024-01-01 00:00:00.0000003"],
        ["2024-01-01T00:00:00.123456789012Z", "2024-01-01T00:00:00.123456789013Z", "2024-01-01T00:00:01Z"],
        # 23:59:59.9999999, 0:00:00.0000001 and 0:00:00.0000002 o'clock UTC
        [
            "2024-01-01T00:59:59.9999999+01:00",
            "2024-01-01T01:00:00.0000001+01:00",
            "2023-12-31T23:00:00.0000002-01:00",
        ],
        ["1700000000000000001.0", "1700000000000000002", "1700000000000000003"],  # one odd cell
        ["1700000000.000000001", "1700000000.000000002", "1700000000.000000003"],
        ["18446744073709551614", "18446744073709551615", "1e20"],  # no int64 holds them
    ],
)
def test_no_digit_of_a_time_is_lost(tmp_path: Path, times: list[str]) -> None:
    first, second, third = times
    text = f"user,item,timestamp\n1,c,{third}\n1,b,{second}\n1,a,{first}\n"
    assert histories_by_id(read_table(write(tmp_path / "log.csv", text))[0]) == {"1": ["a", "b", "c"]}


def test_equal_times_written_in_two_ways_keep_the_order_of_the_file(tmp_path: Path) -> None:
    text = "user,item,timestamp\n1,b,2024-01-01T00:00:00.50\n1,a,2024-01-01T01:00:00.5+01:00\n"
    assert histories_by_id(read_table(write(tmp_path / "log.csv", text))[0]) == {"1": ["b", "a"]}


def test_an_empty_time_among_large_integers_is_refused_by_its_line(tmp_path: Path) -> None:
    text = "user,item,timestamp\n1,b,1700000000000000002\n1,a,\n"
    with pytest.raises(InputError, match=r"log\.csv, line 3: '1,a,' is not a row whose time is a number"):
        read_table(write(tmp_path / "log.csv", text))


@pytest.mark.parametrize(
    "times",
    [
        [Decimal("1700000000000000000.3"), Decimal("1700000000000000000.2")],
        pa.array([2**64 - 1, 2**64 - 2], pa.uint64()),
        pa.array([2, 1], pa.timestamp("s")),
        pa.array([2, 1], pa.timestamp("ms", "Europe/London")),
    ],
)
def test_parquet_times_of_any_type_are_exact(tmp_path: Path, times: list[object] | pa.Array) -> None:
    pq.write_table(pa.table({"user": [1, 1], "item": [70, 80], "timestamp": times}), tmp_path / "log.parquet")
    assert histories_by_id(read_table(tmp_path / "log.parquet")[0]) == {"1": ["80", "70"]}


@pytest.mark.parametrize(
    "users",
    [
        [12345678901.0, 12345678901.0, 42.0, 42.0],
        [Decimal("12345678901.00"), Decimal("12345678901.00"), Decimal("42.00"), Decimal("42.00")],
        pa.array([12345678901, 12345678901, 42, 42]).dictionary_encode(),
        pa.array([b"12345678901", b"12345678901", b"42", b"42"]),
    ],
)
def test_ids_that_are_whole_numbers_are_written_as_such(tmp_path: Path, users: list[object] | pa.Array) -> None:
    interactions, _ = read_table(parquet(tmp_path / "log.parquet", user=users))
    assert interactions.user_ids.tolist() == ["12345678901", "42"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (float("nan"), "with a value in column 'user'"),
        (None, "with a value in column 'user'"),
        (1.5, "with a whole number in column 'user'"),
        (float("inf"), "below 2.53"),
        (1e17, "below 2.53"),  # 100000000000000001 is the same float
    ],
)
def test_a_float_that_is_no_id_is_refused_by_its_row(tmp_path: Path, user: float | None, expected: str) -> None:
    with pytest.raises(InputError, match=rf"log\.parquet, row 3: .* is not a row .*{expected}"):
        read_table(parquet(tmp_path / "log.parquet", user=[1.0, 1.0, user, 2.0]))


def test_ids_that_read_as_missing_are_texts_all_the_same(tmp_path: Path) -> None:
    names = ["NA", "nan", "null", "007", "1e3"]
    text = "user,item,timestamp\n" + "".join(f"{name},a,1\n{name},b,2\n" for name in names)
    assert set(read_table(write(tmp_path / "log.csv", text))[0].user_ids.tolist()) == set(names)


def test_a_text_column_of_parquet_stays_text(tmp_path: Path) -> None:
    columns = {"age": ["18_24", "25_34"] * 2, "shelf": ["007", "7"] * 2, "size": ["1", "2"] * 2}
    catalogue = read_table(parquet(tmp_path / "log.parquet", **columns))[0].catalogue
    assert {name: column.tolist() for name, column in catalogue.columns.items()} == {
        name: cells[:2] for name, cells in columns.items()
    }


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([True, False], [True, False]),
        ([Decimal("9.99"), Decimal("1.50")], [9.99, 1.5]),
        ([1, None], [1.0, np.nan]),
        ([1700000000000000001, None], ["1700000000000000001", ""]),  # no float holds it
        ([date(2015, 2, 24), None], ["2015-02-24", ""]),
    ],
)
def test_further_columns_of_parquet_are_what_their_type_says(
    tmp_path: Path, cells: list[object], expected: list[object]
) -> None:
    catalogue = read_table(parquet(tmp_path / "log.parquet", extra=cells * 2))[0].catalogue
    np.testing.assert_array_equal(catalogue.columns["extra"].tolist(), expected)


def test_a_column_of_csv_is_numbers_only_if_the_rows_of_no_item_say_otherwise(tmp_path: Path) -> None:
    text = "user,item,timestamp,shelf\n1,a,1,7\n1,b,2,8\n2,a,1,007\n2,b,2,8\n"
    assert read_table(write(tmp_path / "log.csv", text))[0].catalogue.columns["shelf"].tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (['1,b,2,"Heroes', "1,c,3,Gamma", '2,d,4,"Low', "2,e,5,Eta"], 3),  # a mark that opens closes in mid-cell
        (['1,b,2,"Heroes', "1,c,3,Gamma", '2,d,4,Low"', "2,e,5,Eta"], 3),  # well-formed, and two rows short
        (['1,b,2,"Heroes', '1,c,3,Gamma"', "2,e,5,Eta"], 3),
        (['1,b,2,"Heroes', "1,c,3,Gamma"], 3),  # never closed
        (['"1,b,2,Heroes', '1",c,3,Gamma'], 3),
        (['1,b,"2,Heroes', '1,c,3",Gamma'], 3),
        (['1,b,1,"Foo, The', '1,c,2,Bar"', "2,b,3,Foo", "2,c,4,Bar"], 3),  # commas of its own hide the first row
        (['1,b,1,"Foo" The', "2,b,3,Foo"], 3),  # text behind a closing mark would become part of the cell
        (['1,"b" x,1,Foo', "2,b x,3,Foo"], 3),
    ],
)
def test_quotation_marks_that_swallow_rows_are_refused(tmp_path: Path, lines: list[str], line: int) -> None:
    text = "\n".join(["user,item,timestamp,title", "1,a,1,Alpha", *lines]) + "\n"
    with pytest.raises(InputError, match=rf"log\.csv, line {line}:.*quotation mark"):
        read_table(write(tmp_path / "log.csv", text))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("user,item,timestamp,title", '1,b,2,"Two, three,{end}and ""four"" lines"'),
        ("title,user,item,timestamp", '"Two, three,{end}and ""four"" lines",1,b,2'),
        ("user,title,item,timestamp", '1,"Two, three,{end}and ""four"" lines",b,2'),
    ],
)
def test_titles_may_have_several_lines(tmp_path: Path, end: str, header: str, row: str) -> None:
    other = {"user": "1", "item": "a", "timestamp": "1", "title": "Alpha"}
    path = tmp_path / "log.csv"
    lines = [header, ",".join(other[name] for name in header.split(",")), row.format(end=end)]
    path.write_bytes((end.join(lines) + end).encode())
    titles = read_table(path)[0].catalogue.titles.tolist()
    assert titles == ["Alpha", f'Two, three,{end}and "four" lines']


def test_a_cell_of_a_million_letters_is_read(tmp_path: Path) -> None:
    text = f"user,item,timestamp,title\n1,a,1,{'w' * 1_500_000}\n1,b,2,short\n"
    assert [len(title) for title in read_table(write(tmp_path / "log.csv", text))[0].catalogue.titles] == [1_500_000, 5]


@pytest.mark.parametrize("name", ["log.PARQUET", "log.parq", "log", "log.csv"])
def test_parquet_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    items = tmp_path / "items.parq"
    pq.write_table(pa.table({"item": ["b", "a"], "title": ["Beta", "Alpha"], "year": [2, 1]}), items)
    catalogue = read_table(parquet(tmp_path / name), items)[0].catalogue
    assert (catalogue.titles.tolist(), catalogue.columns["year"].tolist()) == (["Alpha", "Beta"], [1, 2])


def test_csv_is_known_by_its_content(tmp_path: Path) -> None:
    plain, _ = read_table(write(tmp_path / "log.parquet", LOG))
    (tmp_path / "packed.csv").write_bytes(gzip.compress(LOG.encode()))
    packed, _ = read_table(tmp_path / "packed.csv")
    assert plain.hash == packed.hash


def test_a_prepared_data_file_is_no_log(tmp_path: Path) -> None:
    read_table(write(tmp_path / "log.csv", LOG))[0].save(tmp_path / "log.npz")
    with pytest.raises(InputError, match=r"log\.npz is a zip archive or a prepared data file"):
        read_table(tmp_path / "log.npz")


def as_large_text(values: list[object]) -> pa.Array:
    return pa.array(values, pa.large_string() if isinstance(values[0], str) else None)


def as_text_view(values: list[object]) -> pa.Array:
    return pa.array(values, pa.string_view() if isinstance(values[0], str) else None)


def as_categories(values: list[object]) -> pa.Array:
    return pa.array(values).dictionary_encode()


@pytest.mark.parametrize("row_group_size", [1, 4])
@pytest.mark.parametrize("kind", [pa.array, as_categories, as_large_text, as_text_view])
def test_all_encodings_of_one_log_are_the_same_log(
    tmp_path: Path, kind: Callable[[list[object]], pa.Array], row_group_size: int
) -> None:
    rows: dict[str, list[object]] = {
        "user": ["1", "1", "2", "2"], "item": ["b", "a", "b", "a"], "timestamp": [2, 1, 3, 4],
        "title": ["B", "A", "B", "A"], "genres": ["X|Y", "X", "X|Y", "X"],
    }  # fmt: skip
    table = pa.table({name: kind(values) for name, values in rows.items()})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=row_group_size)
    interactions, _ = read_table(tmp_path / "log.parquet")
    assert histories_by_id(interactions) == {"1": ["a", "b"], "2": ["b", "a"]}
    assert interactions.catalogue.titles.tolist() == ["A", "B"]
    assert [interactions.catalogue.genres_of(item) for item in (1, 2)] == [["X"], ["X", "Y"]]


def test_tomorrows_log_with_another_user_has_the_same_catalogue(tmp_path: Path) -> None:
    header = "user,item,timestamp,rating\n"
    monday, _ = read_table(write(tmp_path / "monday.csv", header + "1,b,1,5\n1,a,2,3\n"))
    tuesday, _ = read_table(write(tmp_path / "tuesday.csv", header + "0,a,8,1\n0,b,9,2\n1,b,1,5\n1,a,2,3\n"))
    assert monday.catalogue.hash == tuesday.catalogue.hash
    assert monday.hash != tuesday.hash


def test_a_title_of_several_lines_is_no_row(tmp_path: Path) -> None:
    text = 'user,title,item,timestamp\n1,"Two, three\nand, four",b,2\n2,Foo,and,3\n2,Bar,b,4\n1,Foo,and,5\n'
    interactions, _ = read_table(write(tmp_path / "log.csv", text))
    assert histories_by_id(interactions) == {"1": ["b", "and"], "2": ["and", "b"]}


def test_rows_of_items_that_quotation_marks_swallow_are_refused(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", 'item,title\ni1,"Foo\ni2,Bar\ni3,Baz"\ni4,Low\n')
    log = write(tmp_path / "log.csv", "user,item,timestamp\n1,i1,1\n1,i2,2\n")
    with pytest.raises(InputError, match=r"items\.csv, line 2:.*quotation mark"):
        read_table(log, items)


@pytest.mark.parametrize(("kind", "bits"), [("float", 24), ("halffloat", 11)])
def test_ids_of_small_floats_are_refused_where_they_merge(tmp_path: Path, kind: str, bits: int) -> None:
    def table_of(users: list[float]) -> Path:
        column = pa.array(np.array(users, dtype={"float": np.float32, "halffloat": np.float16}[kind]))
        pq.write_table(pa.table({"user": column, "item": ["a", "b"], "timestamp": [1, 2]}), tmp_path / "log.parquet")
        return tmp_path / "log.parquet"

    assert list(read_table(table_of([2.0**bits - 1] * 2))[0].user_ids) == [str(2**bits - 1)]
    with pytest.raises(InputError, match=rf"row 1: .*below 2.{bits}"):
        read_table(table_of([2.0**bits] * 2))


@pytest.mark.parametrize(
    ("times", "stamps"),
    [
        (["20", "10", "30"], [10, 20, 30]),
        (["2.5", "1", "3"], [1.0, 2.5, 3.0]),
        (["1970-01-01T00:00:02", "1970-01-01", "1970-01-02T00:00:00.0000019"], [0, 2_000_000, 86_400_000_001]),
        ([datetime(1970, 1, 1, 0, 0, 2), datetime(1970, 1, 1), datetime(1970, 1, 2)], [0, 2_000_000, 86_400_000_000]),
        ([date(1970, 1, 3), date(1970, 1, 2), date(1970, 1, 4)], [n * 86_400_000_000 for n in (1, 2, 3)]),
        ([2**62, 1, 2**62 + 1], [1, 2**62, 2**62 + 1]),
        ([timedelta(seconds=2), timedelta(seconds=1), timedelta(seconds=3)], [1_000_000, 2_000_000, 3_000_000]),
    ],
)
def test_times_are_kept_in_the_order_of_the_histories(tmp_path: Path, times: list[Any], stamps: list[float]) -> None:
    path = tmp_path / "log"
    if isinstance(times[0], str):
        rows = [f"u,{item},{time}" for item, time in zip("bac", times, strict=True)]
        path.write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    else:
        pq.write_table(pa.table({"user": ["u"] * 3, "item": ["b", "a", "c"], "timestamp": times}), path)
    interactions, _ = read_table(path)
    assert histories_by_id(interactions) == {"u": ["a", "b", "c"]}
    assert interactions.times is not None
    assert interactions.times.tolist() == stamps
    assert interactions.times.dtype == (np.float64 if isinstance(stamps[0], float) else np.int64)
