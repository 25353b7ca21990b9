from __future__ import annotations

import numpy as np
import pytest

from gptrec_rl.data import Catalogue
from gptrec_rl.data.catalogue import content_hash, genre_matrix
from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError


def make_catalogue(**changes: object) -> Catalogue:
    fields: dict[str, object] = {
        "item_ids": np.array(["a", "b", "c"]),
        "titles": np.array(["Alpha", "Beta", "Gamma"]),
        "genre_names": ("Comedy", "War"),
        "genres": np.array([[True, False], [True, True], [False, True]]),
        "columns": {"price": np.array([1.0, 2.0, 3.0])},
    }
    return Catalogue(**{**fields, **changes})  # type: ignore[arg-type]


def test_internal_ids_start_at_one_and_the_separator_comes_after_the_last() -> None:
    catalogue = make_catalogue()
    assert [catalogue.internal(item_id) for item_id in ("a", "b", "c")] == [1, 2, 3]
    assert (catalogue.n_items, catalogue.separator) == (3, 4)
    assert (catalogue.title(2), catalogue.genres_of(2)) == ("Beta", ["Comedy", "War"])


def test_an_unknown_item_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown item 'z': the catalogue has 3 items, such as 'a', 'b', 'c'"):
        make_catalogue().internal("z")


def test_an_item_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match="item 'a' is listed more than once"):
        make_catalogue(item_ids=np.array(["a", "b", "a"]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("titles", {"titles": np.array(["Alpha"])}),
        ("genres", {"genres": np.ones((2, 2), dtype=bool)}),
        ("price", {"columns": {"price": np.zeros(4)}}),
    ],
)
def test_a_column_of_another_length_is_refused(name: str, change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"catalogue: {name} has"):
        make_catalogue(**change)


def test_without_genres_no_item_has_one() -> None:
    catalogue = Catalogue(np.array(["a", "b"]), np.array(["A", "B"]))
    assert catalogue.genres.shape == (2, 0)
    with pytest.raises(InputError, match=r"item 'a' has no genre \(2 of 2 items have none\)"):
        catalogue.require_genres()


def test_the_first_item_without_genres_is_named() -> None:
    make_catalogue().require_genres()
    ungenred = make_catalogue(genres=np.array([[True, False], [False, False], [False, False]]))
    with pytest.raises(InputError, match=r"item 'b' has no genre \(2 of 3 items have none\).*--drop-ungenred"):
        ungenred.require_genres()


@pytest.mark.parametrize(
    "change",
    [
        {"titles": np.array(["Alpha", "Beta", "Delta"])},
        {"genre_names": ("Comedy", "Western")},
        {"genres": np.ones((3, 2), dtype=bool)},
        {"columns": {"price": np.array([1.0, 2.0, 4.0])}},
        {"columns": {"year": np.array([1.0, 2.0, 3.0])}},
    ],
)
def test_what_is_known_of_items_is_no_part_of_the_catalogues_identity(change: dict[str, object]) -> None:
    assert make_catalogue(**change).hash == make_catalogue().hash


@pytest.mark.parametrize("ids", [["a", "b", "d"], ["b", "a", "c"]])
def test_the_ids_in_order_are_the_catalogues_identity(ids: list[str]) -> None:
    assert make_catalogue(item_ids=np.array(ids)).hash != make_catalogue().hash


def test_the_room_that_a_text_takes_is_no_part_of_a_hash() -> None:
    assert make_catalogue(item_ids=np.array(["a", "b", "c"], dtype="<U99")).hash == make_catalogue().hash


def test_one_long_title_costs_nothing_for_the_other_items() -> None:
    n_items = 20_000  # in cells of one width these titles would be 20,000 x 20,000 letters of 4 bytes, 1.6 GB
    ids = np.array([str(item) for item in range(n_items)])
    titles = text_array(["w" * 20_000, *["short"] * (n_items - 1)])
    assert Catalogue(ids, titles).titles.nbytes < 1_000_000


@pytest.mark.parametrize("item", [0, -1, 4, 1.5, "1", True])
def test_a_number_that_is_no_items_has_no_title(item: object) -> None:
    with pytest.raises(InputError, match="no item number"):
        make_catalogue().title(item)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no item number"):
        make_catalogue().genres_of(item)  # type: ignore[arg-type]


def test_the_content_hash_tells_names_types_and_shapes_apart() -> None:
    variants = [
        {"x": np.zeros(4, np.int32)},
        {"y": np.zeros(4, np.int32)},
        {"x": np.zeros(2, np.int64)},
        {"x": np.zeros((2, 2), np.int32)},
    ]
    assert len({content_hash(variant) for variant in variants}) == len(variants)


def test_the_content_hash_does_not_depend_on_memory_layout() -> None:
    array = np.arange(6).reshape(2, 3)
    assert content_hash({"x": array}) == content_hash({"x": np.asfortranarray(array)})


def test_genre_names_are_sorted_and_rows_follow_the_items() -> None:
    names, matrix = genre_matrix([["War", "Comedy"], [], ["War"]])
    assert names == ("Comedy", "War")
    assert matrix.tolist() == [[True, True], [False, False], [False, True]]


def test_more_genres_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptrec_rl.data.catalogue.MOST_GENRE_CELLS", 5)
    assert genre_matrix([["a"], ["b"]])[0] == ("a", "b")
    with pytest.raises(InputError, match="3 genres among 2 items are more than can be held"):
        genre_matrix([["a"], ["b", "c"]])
