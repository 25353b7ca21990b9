"""What all tests share: the data beside the checkout, one thread, reproducible properties."""

from __future__ import annotations

import csv
import gzip
import lzma
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from gptrec_rl.stops import STOPPING

if TYPE_CHECKING:
    import torch

    from gptrec_rl.data import Interactions
    from gptrec_rl.models.gptrec import GPTRec
    from gptrec_rl.models.network import Network

pytest_plugins = ["tests.fixtures.evidence", "tests.fixtures.fleet", "tests.fixtures.transport"]

# Scripts that write what tests compare with; they need libraries that the tests don't, so none is collected.
collect_ignore = ["oracles"]

# Read when torch and numpy are first imported, here and in child processes; torch itself stays unimported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def cut_into(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has processors' work cut otherwise, by the attributes of a `WorkSizes`."""
    from gptrec_rl.models.work_sizes import WORK_SIZES

    def change(**changes: int) -> None:
        monkeypatch.setitem(WORK_SIZES, "cpu", replace(WORK_SIZES["cpu"], **changes))

    return change


@pytest.fixture(autouse=True)
def signals_that_are_heard() -> Iterator[None]:
    """Let signals that stop be heard where this suite was started to ignore them, too: by `nohup`, say."""
    ignored = [number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of public data sets beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets in ../shared/data, beside the checkout")
    return folder


@pytest.fixture(scope="session")
def real_steam(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Return some shared windows of real reviews, each as one user, and their games, by way of UCSD's raw files."""
    from gptrec_rl.data.sources.steam import read_raw

    with lzma.open(shared_data / "steam" / "duvrec_windows.csv.xz", "rt") as stream:
        windows = list(islice(csv.DictReader(stream), 800))
    reviews = [
        {"username": f"w{window}", "product_id": game, "date": day}
        for window, row in enumerate(windows)
        for game, day in zip(row["product_ids"].split(), row["dates"].split(), strict=True)
    ]
    reviewed = {review["product_id"] for review in reviews}
    with lzma.open(shared_data / "steam" / "games.csv.xz", "rt") as stream:
        games = [
            {"id": row["product_id"], "app_name": row["name"], "tags": row["tags"].split("|") if row["tags"] else []}
            for row in csv.DictReader(stream)
            if row["product_id"] in reviewed
        ]
    folder = tmp_path_factory.mktemp("steam")
    for name, lines in (("reviews", reviews), ("games", games)):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress("\n".join(map(repr, lines)).encode()))
    return read_raw(folder / "reviews.json.gz", folder / "games.json.gz")


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., GPTRec]:
    """Return a maker of small policies (12 items, n = 5, K = 3) with weights random enough for clear preferences."""
    import torch

    from gptrec_rl.config import ModelConfig
    from gptrec_rl.models.gptrec import GPTRec

    def make(
        n_items: int = 12, history_length: int = 5, slate_length: int = 3, seed: int = 0, dropout: float = 0.0
    ) -> GPTRec:
        sizes = ModelConfig(n_layers=2, n_heads=2, width=16, history_length=history_length, slate_length=slate_length)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            policy = GPTRec.create(n_items, sizes, dropout).eval()
            for weights in policy.parameters():
                weights += 0.3 * torch.randn(weights.shape)
        return policy

    return make


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Network]:
    """Return a maker of small SASRecs, GPTRec-Shiftings and BERT4Recs, as random as the policies."""
    import torch

    from gptrec_rl.config import TransformerConfig
    from gptrec_rl.models.bert4rec import Bert4Rec
    from gptrec_rl.models.next_item import GPTRecShifting, SASRec

    kinds: dict[str, type[SASRec | GPTRecShifting | Bert4Rec]] = {
        "sasrec": SASRec,
        "shifting": GPTRecShifting,
        "bert4rec": Bert4Rec,
    }

    def make(kind: str, n_items: int = 12, history_length: int = 5, seed: int = 0, dropout: float = 0.0) -> Network:
        sizes = TransformerConfig(n_layers=2, n_heads=2, width=16, history_length=history_length)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            network = kinds[kind].create(n_items, sizes, dropout).eval()
            for weights in network.parameters():
                weights += 0.3 * torch.randn(weights.shape)
        return network

    return make


@pytest.fixture(scope="session")
def plain_log_probs() -> Callable[..., torch.Tensor]:
    """Return the oracle: a plain GPT-2 over the whole sequence, padded to n on the left, for one choice of one list."""
    import torch

    @torch.no_grad()
    def log_probs(
        policy: GPTRec, history: Sequence[int], earlier: Sequence[int], may: np.ndarray, temperature: float = 1.0
    ) -> torch.Tensor:
        """Return the log-probability of each item behind a history and the earlier items of the list, [I]."""
        n, n_items = policy.history_length, policy.n_items
        read = list(history)[-n:]
        n_padding = n - len(read)
        logits = policy.network(
            input_ids=torch.tensor([[0] * n_padding + read + [n_items + 1] + list(earlier)]),
            attention_mask=torch.tensor([[0] * n_padding + [1] * (len(read) + 1 + len(earlier))]),
            position_ids=torch.tensor([list(range(n, -1, -1)) + [n + 1 + i for i in range(len(earlier))]]),
        ).logits[0, -1, 1 : n_items + 1]
        for item in range(1, n_items + 1):
            if not may[item - 1] or item in history or item in earlier:
                logits[item - 1] = -torch.inf
        return torch.log_softmax(logits / temperature, dim=0)

    return log_probs
