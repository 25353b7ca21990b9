from __future__ import annotations

import gzip
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gptrec_rl.data import Interactions, statistics
from gptrec_rl.data.sources.ml1m import fetch_zip, read_sequences, read_zip
from gptrec_rl.errors import InputError

ITEMS = "item_id,original_movie_id,title,genres\n1,30,Heat (1995),Crime\n2,10,Clue (1985),Comedy|Crime\n"
MOVIES = "10::Clue (1985)::Comedy|Crime\n20::Élisa (1995)::Drama\n30::Heat (1995)::Crime\n40::Unseen (1990)::War\n"


def write_sequences(folder: Path, interactions: str) -> Path:
    (folder / "items.csv").write_text(ITEMS)
    (folder / "interactions.txt.gz").write_bytes(gzip.compress(interactions.encode()))
    return folder


def write_zip(path: Path, ratings: list[str], movies: str = MOVIES) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "\n".join(ratings) + "\n")
        archive.writestr("ml-1m/movies.dat", movies.encode("latin-1"))
    return path


def histories_by_id(interactions: Interactions) -> dict[str, list[str]]:
    item_ids = interactions.catalogue.item_ids
    return {
        str(user): [str(item_ids[item - 1]) for item in history]
        for user, history in zip(interactions.user_ids, interactions.histories, strict=True)
    }


def test_the_shared_sequences_are_the_papers_data_set(shared_data: Path) -> None:
    interactions = read_sequences(shared_data / "ml-1m")
    facts = statistics(interactions)
    assert (facts.users, facts.items, facts.interactions, facts.genres) == (6040, 3416, 999_611, 18)
    assert (round(facts.mean_length, 2), facts.median_length, round(facts.sparsity, 2)) == (165.50, 96.0, 0.95)
    lengths = interactions.histories.lengths
    assert (lengths.min(), lengths.max()) == (18, 2277)
    assert all(len(set(history.tolist())) == len(history) for history in interactions.histories)
    interactions.catalogue.require_genres()
    assert interactions.catalogue.title(interactions.catalogue.internal("3")) == "Forrest Gump (1994)"
    assert interactions.catalogue.columns["original_movie_id"][2] == 356


def test_sequences_keep_the_order_of_lines_and_items(tmp_path: Path) -> None:
    interactions = read_sequences(write_sequences(tmp_path, "7 2\n7 1\n10 1\n"))
    assert histories_by_id(interactions) == {"7": ["2", "1"], "10": ["1"]}
    assert interactions.catalogue.titles.tolist() == ["Heat (1995)", "Clue (1985)"]
    assert interactions.name == "ml-1m"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 2\n7 9\n", r"interactions\.txt\.gz, line 2: '7 9' is not about an item of items\.csv"),
        ("7 2\n7\n", r"interactions\.txt\.gz, line 2: '7' is not `user item`"),
        ("", r"interactions\.txt\.gz has no lines"),
    ],
)
def test_a_malformed_sequence_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sequences(write_sequences(tmp_path, text))


def test_a_folder_without_sequences_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no items\.csv"):
        read_sequences(tmp_path)


def test_the_zip_is_ordered_by_time_and_rare_items_are_dropped(tmp_path: Path) -> None:
    # Films 30 and 10 have five ratings each, film 20 four; user 1 rated 30 and 10 in the same second, 30 first.
    ratings = ["1::30::5::100", "1::20::4::50", "1::10::3::100"]
    ratings += [f"{user}::{film}::3::{200 - film}" for user in (2, 3, 11) for film in (10, 20, 30)]
    ratings += ["4::10::5::1", "4::30::5::2"]
    interactions = read_zip(write_zip(tmp_path / "ml-1m.zip", ratings))
    assert histories_by_id(interactions) == {
        "1": ["30", "10"],
        "2": ["30", "10"],
        "3": ["30", "10"],
        "4": ["10", "30"],
        "11": ["30", "10"],
    }
    assert interactions.catalogue.titles.tolist() == ["Clue (1985)", "Heat (1995)"]
    assert interactions.catalogue.genre_names == ("Comedy", "Crime")
    assert interactions.name == "ml-1m-grouplens"


def test_titles_of_the_zip_are_latin_1(tmp_path: Path) -> None:
    ratings = [f"{user}::20::3::{user}" for user in range(1, 6)]
    assert read_zip(write_zip(tmp_path / "z.zip", ratings)).catalogue.titles.tolist() == ["Élisa (1995)"]


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        (["1::10::5::1", "1::10::five::2"], MOVIES, r"ratings\.dat, line 2: '1::10::five::2'"),
        (["1::10::5::1"], "10::Clue (1985)\n", r"movies\.dat, line 1: '10::Clue \(1985\)' is not"),
    ],
)
def test_a_malformed_line_in_the_zip_is_named(tmp_path: Path, ratings: list[str], movies: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_zip(write_zip(tmp_path / "ml-1m.zip", ratings, movies))


def test_what_is_not_grouplens_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    for name in ("text.zip", "other.zip", "none.zip"):
        with pytest.raises(InputError, match=rf"{name} is not GroupLens' ml-1m\.zip"):
            read_zip(tmp_path / name)


CONTENT = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ml-1m.zip" else 404)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_a_download_is_checked_and_shows_its_progress(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    md5 = hashlib.md5(CONTENT).hexdigest()
    path = fetch_zip(tmp_path / "new", f"{server}/ml-1m.zip", md5)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["ml-1m.zip"]
    progress = capsys.readouterr().err
    assert "ml-1m.zip: 100%" in progress
    assert "256k/256k" in progress


def test_a_right_file_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "ml-1m.zip").write_bytes(b"content")
    url = "http://127.0.0.1:1/unreachable"
    assert fetch_zip(tmp_path, url, hashlib.md5(b"content").hexdigest()) == tmp_path / "ml-1m.zip"


def test_a_download_with_another_checksum_leaves_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ml-1m\.zip has MD5 [0-9a-f]{32}, not 0123: a broken download"):
        fetch_zip(tmp_path, f"{server}/ml-1m.zip", "0123")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/ml-1m.zip", "{server}/none.zip"])
def test_an_address_that_does_not_answer_is_named(server: str, tmp_path: Path, path: str) -> None:
    url = path.format(server=server)
    with pytest.raises(InputError, match=f"{url} can't be fetched .*--path"):
        fetch_zip(tmp_path, url, "0123")
    assert list(tmp_path.iterdir()) == []
