from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptrec_rl.data import Catalogue, Histories, Interactions, statistics
from gptrec_rl.errors import InputError


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
        {"user_ids": np.array(["u1", "u2", "u4"])},
        {"titles": np.array(["Alpha", "Beta", "Gamma", "Delta"])},
        {"column:price": np.array([1.5, 2.0, 3.0, 5.0])},
    ],
)
def test_an_altered_file_is_refused(interactions: Interactions, tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    interactions.save(tmp_path / "data.npz")
    with pytest.raises(InputError, match=r"data\.npz was altered.*prepare it again"):
        Interactions.load(altered(tmp_path / "data.npz", **changes))


def test_another_format_version_is_refused(interactions: Interactions, tmp_path: Path) -> None:
    interactions.save(tmp_path / "data.npz")
    with pytest.raises(InputError, match="has format 2, not 1"):
        Interactions.load(altered(tmp_path / "data.npz", format_version=np.array(2)))


@pytest.mark.parametrize("name", ["hash", "name", "titles", "offsets"])
def test_a_file_that_lacks_an_array_is_refused(interactions: Interactions, tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.npz"
    interactions.save(path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != name}
    np.savez_compressed(path, allow_pickle=False, **arrays)
    with pytest.raises(InputError, match=rf"data\.npz is damaged: it has no array '{name}'; prepare it again"):
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
    with pytest.raises(InputError, match="unknown user 'u9': tiny has 3 users, 'u1' to 'u3'"):
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
