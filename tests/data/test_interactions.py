from __future__ import annotations

import errno
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.data import Catalogue, Histories, Interactions, statistics
from gptrec_rl.data.texts import packed, text_array
from gptrec_rl.errors import InputError, StorageError


@pytest.fixture
def interactions() -> Interactions:
    catalogue = Catalogue(
        np.array(["a", "b", "c", "d"]),
        np.array(["Alpha", "Bêta", "Gamma", "Delta"]),
        ("Comedy", "War"),
        np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool),
        {"price": np.array([1.5, 2.0, 3.0, 4.0]), "maker": np.array(["x", "y", "z", "x"])},
    )
    return Interactions(catalogue, np.array(["u1", "u2", "u3"]), Histories.of([[1, 2, 3], [4], [2, 4]]), "tiny")


def altered(path: Path, **changes: np.ndarray) -> Path:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez_compressed(path, allow_pickle=False, **{**arrays, **changes})
    return path


def test_a_saved_file_loads_as_the_same(interactions: Interactions, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "data.npz"
    interactions.save(path)
    loaded = Interactions.load(path)
    assert loaded.hash == interactions.hash
    assert loaded.catalogue.hash == interactions.catalogue.hash
    assert loaded.name == "tiny"
    assert loaded.user_ids.tolist() == ["u1", "u2", "u3"]
    assert [history.tolist() for history in loaded.histories] == [[1, 2, 3], [4], [2, 4]]
    assert loaded.catalogue.titles.tolist() == ["Alpha", "Bêta", "Gamma", "Delta"]
    assert loaded.catalogue.genre_names == ("Comedy", "War")
    assert loaded.catalogue.genres.tolist() == interactions.catalogue.genres.tolist()
    assert {name: column.tolist() for name, column in loaded.catalogue.columns.items()} == {
        "price": [1.5, 2.0, 3.0, 4.0],
        "maker": ["x", "y", "z", "x"],
    }
    assert [file.name for file in path.parent.iterdir()] == ["data.npz"]


def test_a_catalogue_without_genres_survives_saving(tmp_path: Path) -> None:
    catalogue = Catalogue(np.array(["a", "b"]), np.array(["A", "B"]))
    Interactions(catalogue, np.array(["u"]), Histories.of([[2, 1]]), "bare").save(tmp_path / "data.npz")
    assert Interactions.load(tmp_path / "data.npz").catalogue.hash == catalogue.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"values": np.array([1, 2, 3, 4, 2, 3], dtype=np.int32)},
        {"utf8:user_ids": packed(text_array(["u1", "u2", "u4"]))[0]},
        {"utf8:titles": packed(text_array(["Alpha", "Bèta", "Gamma", "Delta"]))[0]},
        {"column:price": np.array([1.5, 2.0, 3.0, 5.0])},
    ],
)
def test_an_altered_file_is_refused(interactions: Interactions, tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    interactions.save(tmp_path / "data.npz")
    with pytest.raises(InputError, match=r"data\.npz was altered.*prepare it again"):
        Interactions.load(altered(tmp_path / "data.npz", **changes))


def test_another_format_version_is_refused(interactions: Interactions, tmp_path: Path) -> None:
    interactions.save(tmp_path / "data.npz")
    with pytest.raises(InputError, match="has format 4, not 3"):
        Interactions.load(altered(tmp_path / "data.npz", format_version=np.array(4)))


@pytest.mark.parametrize("name", ["hash", "name", "utf8:titles", "offsets"])
def test_a_file_that_lacks_an_array_is_refused(interactions: Interactions, tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.npz"
    interactions.save(path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != name}
    np.savez_compressed(path, allow_pickle=False, **arrays)
    with pytest.raises(
        InputError, match=rf"data\.npz is damaged: it has no array '{name.removeprefix('utf8:')}'; prepare it again"
    ):
        Interactions.load(path)


def test_a_truncated_file_is_refused(interactions: Interactions, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    interactions.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"data\.npz can't be read .*prepare it again"):
        Interactions.load(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there; make it with `gptrec-rl data prepare`"):
        Interactions.load(tmp_path / "none.npz")


def test_a_save_that_fails_keeps_the_file_before(
    interactions: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npz"
    interactions.save(path)

    def full_disk(stream: object, **arrays: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space left"):
        interactions.save(path)
    assert Interactions.load(path).hash == interactions.hash


def test_users_are_found_by_their_external_id(interactions: Interactions) -> None:
    assert interactions.row("u3") == 2
    with pytest.raises(InputError, match="unknown user 'u9': tiny has 3 users, such as 'u1', 'u2', 'u3'"):
        interactions.row("u9")


def test_the_hash_depends_on_the_order_within_a_history(interactions: Interactions) -> None:
    other = Interactions(interactions.catalogue, interactions.user_ids, Histories.of([[2, 1, 3], [4], [2, 4]]), "tiny")
    assert other.hash != interactions.hash


def test_each_history_needs_a_user(interactions: Interactions) -> None:
    with pytest.raises(InputError, match="tiny: 1 user ids for 3 histories"):
        Interactions(interactions.catalogue, np.array(["u1"]), interactions.histories, "tiny")


def test_statistics_of_three_users(interactions: Interactions) -> None:
    facts = statistics(interactions)
    assert (facts.users, facts.items, facts.interactions, facts.genres) == (3, 4, 6, 2)
    assert facts.mean_length == 2.0  # (3 + 1 + 2) / 3
    assert facts.median_length == 2.0  # of 1, 2, 3
    assert facts.sparsity == 0.5  # 1 - 6 / (3 * 4)


def hash_of_format_1(named_arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(named_arrays):
        array = np.ascontiguousarray(named_arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode() + array.tobytes())
    return digest.hexdigest()


def file_of_format_1(path: Path, **changes: np.ndarray) -> str:
    """Write what releases before format 2 wrote, two items and one user, and return their hash of the catalogue."""
    catalogue = {"item_ids": np.array(["a", "b"]), "titles": np.array(["Alpha", "B"]), "genre_names": np.array(["War"])}
    genres = np.array([[True], [False]])
    log = {"user_ids": np.array(["u"]), "values": np.array([2, 1], np.int32), "offsets": np.array([0, 2])}
    before = hash_of_format_1({**catalogue, "genres": genres})
    facts = {"format_version": np.array(1), "name": np.array("old"), "genres": np.packbits(genres, axis=1)}
    whole = hash_of_format_1({"catalogue": np.array(before), **log})
    np.savez_compressed(path, **{**facts, "hash": np.array(whole), **catalogue, **log, **changes})
    return before


def test_a_file_of_format_1_is_read_and_remembers_what_its_catalogue_was_called(tmp_path: Path) -> None:
    former = file_of_format_1(tmp_path / "old.npz")
    loaded = Interactions.load(tmp_path / "old.npz")
    assert (loaded.name, loaded.user_ids.tolist(), loaded.histories[0].tolist()) == ("old", ["u"], [2, 1])
    assert loaded.catalogue.titles.tolist() == ["Alpha", "B"]
    assert loaded.catalogue.former_hash == former
    loaded.save(tmp_path / "new.npz")
    assert Interactions.load(tmp_path / "new.npz").hash == loaded.hash


def test_an_altered_file_of_format_1_is_refused(tmp_path: Path) -> None:
    file_of_format_1(tmp_path / "old.npz", titles=np.array(["Omega", "B"]))
    with pytest.raises(InputError, match=r"old\.npz was altered"):
        Interactions.load(tmp_path / "old.npz")


@pytest.mark.parametrize("content", [b"user,item,timestamp\n1,a,1\n", b"PAR1....PAR1"])
def test_a_log_given_for_a_data_file_is_told_how_to_become_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ok.csv").write_bytes(content)
    with pytest.raises(
        InputError, match=r"ok\.csv is no prepared data file.*data prepare table .*ok\.csv --out ok\.npz"
    ):
        Interactions.load(tmp_path / "ok.csv")


def test_histories_of_items_that_the_catalogue_lacks_are_refused(interactions: Interactions) -> None:
    with pytest.raises(InputError, match=r"5 is no item number.*1 to 4"):
        Interactions(interactions.catalogue, np.array(["u"]), Histories.of([[1, 5]]), "tiny")


def test_data_of_other_genres_or_columns_are_other_data(interactions: Interactions) -> None:
    catalogue = interactions.catalogue
    for changed in (
        replace(catalogue, genres=~catalogue.genres),
        replace(catalogue, columns={}),
        replace(catalogue, titles=catalogue.item_ids),
    ):
        other = replace(interactions, catalogue=changed)
        assert other.hash != interactions.hash
        assert other.catalogue.hash == catalogue.hash


def test_times_are_kept_and_are_no_part_of_the_hash(interactions: Interactions, tmp_path: Path) -> None:
    times = np.arange(6, dtype=np.int64) + 1_700_000_000
    timed = replace(interactions, times=times)
    assert timed.hash == interactions.hash
    timed.save(tmp_path / "timed.npz")
    assert np.array_equal(Interactions.load(tmp_path / "timed.npz").times, times)
    with pytest.raises(InputError, match=r"timed\.npz was altered"):
        Interactions.load(altered(tmp_path / "timed.npz", times=times + 1))
    with pytest.raises(InputError, match="times of type int32"):
        replace(interactions, times=times.astype(np.int32))


def test_a_file_of_format_2_has_no_times(interactions: Interactions, tmp_path: Path) -> None:
    interactions.save(tmp_path / "data.npz")
    read = Interactions.load(altered(tmp_path / "data.npz", format_version=np.array(2)))
    assert read.times is None
    assert read.hash == interactions.hash


def test_a_read_that_fails_is_no_damage(
    interactions: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interactions.save(tmp_path / "data.npz")

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(StorageError, match="can't be read now"):
        Interactions.load(tmp_path / "data.npz")
