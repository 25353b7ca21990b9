"""Training on shifted sequences: its losses by hand, its negatives, and that the models learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional

from gptrec_rl import kinds, recommender
from gptrec_rl.config import Bert4RecConfig, NextItemConfig, SASRecConfig, ShiftingConfig, TransformerConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.errors import InputError
from gptrec_rl.learning import next_item
from gptrec_rl.learning.next_item import NextItemTraining, binary_loss, draw_negatives, scores_of, validation_loss
from gptrec_rl.models.next_item import NextItemTransformer
from gptrec_rl.recommender import Slates

Make = Callable[..., NextItemTransformer]
SMALL = {"batch_size": 16, "warmup_steps": 1, "learning_rate": 0.01, "precision": "fp32", "max_steps": 4}
SETTINGS = {
    "shifting": ShiftingConfig(**SMALL),
    "bce": SASRecConfig(**SMALL, n_negatives=4),
    "gbce": SASRecConfig(**SMALL, loss="gbce", n_negatives=4),
    "softmax": SASRecConfig(**SMALL, loss="softmax"),
}


def training_of(config: NextItemConfig, split: Split, make_network: Make, **settings: object) -> NextItemTraining:
    kind = "sasrec" if isinstance(config, SASRecConfig) else "shifting"
    return NextItemTraining(make_network(kind), split, config.model_copy(update=settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_learns_the_way_round_the_ring(name: str, wide_ring: Split) -> None:
    sizes = TransformerConfig(n_layers=2, n_heads=2, width=16, history_length=5)
    settings = {"model": sizes, "max_steps": 200, "learning_rate": 0.02, "dropout": 0.0}
    torch.manual_seed(0)
    training = kinds.training_of(SETTINGS[name].model_copy(update=settings), wide_ring)
    training.run()
    slates = kinds.recommender_of(training.network).recommend(wide_ring.test.histories, 1)
    hits = slates.items[:, 0] == wide_ring.test.ground_truth
    assert hits.mean() > 0.85  # 10 after 1..9 is seen in no training history
    assert training.best_loss < 0.1


def test_the_softmax_loss_is_the_mean_cross_entropy_of_all_places_of_all_parts(
    make_network: Make, ring: Split, monkeypatch: pytest.MonkeyPatch, cut_into: Callable[..., None]
) -> None:
    windows = Histories.of([[1, 2, 3, 4, 5, 6], [7], [8, 9, 10], [3, 4, 5, 6, 7], [1, 2]])
    monkeypatch.setattr(next_item, "draw_windows", lambda split, n, length, rng: (np.arange(5), windows))
    cut_into(tokens_per_part=1)  # four windows, and the last
    training = training_of(SETTINGS["softmax"], ring, make_network)
    losses = list(training._losses(np.random.default_rng(0)))
    assert len(losses) == 2
    terms = []
    for window in windows:
        read = window[:-1]
        tokens, positions = torch.tensor([[13, *read]]), torch.arange(len(read), -1, -1)[None]
        with torch.no_grad():
            logits = training.network.network(tokens, position_ids=positions).logits[0, :, 1:13]
        terms += functional.cross_entropy(logits, torch.tensor(window - 1).long(), reduction="none").tolist()
    assert sum(loss.item() for loss in losses) == pytest.approx(np.mean(terms), abs=1e-4)


def test_the_binary_loss_is_gsasrecs() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.0]])
    # M = 2 of I - 1 = 4 others, so alpha = 0.5. -log sigma(2) = 0.126928; the negatives' -log(1 - sigma(-1)) = 0.313262
    # and -log(1 - sigma(0)) = 0.693147 add up to 1.006409. With t = 0.75: beta = 0.5 (0.75 (1 - 2) + 2) = 0.625.
    expected = {0.0: (0.126928 + 1.006409) / 3, 0.75: (0.625 * 0.126928 + 1.006409) / 3}
    for calibration, value in expected.items():
        assert binary_loss(scores, 5, calibration).item() == pytest.approx(value, abs=1e-5)


def test_without_calibration_the_loss_is_binary_cross_entropy() -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(6, 4)
    expected = functional.binary_cross_entropy_with_logits(scores, labels)
    loss = binary_loss(scores, 10)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (loss, expected)))


@pytest.mark.parametrize(("n_items", "skipped"), [(18, "embedding"), (19, "linear")], ids=["all scores", "embeddings"])
def test_scores_of_few_items_are_those_of_all_without_them(
    n_items: int, skipped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    states = torch.randn(5, 6, generator=random, requires_grad=True)
    item_weights = torch.randn(n_items, 6, generator=random, requires_grad=True)
    choices = torch.tensor([[1, 2, n_items], [3, 3, 1], [n_items, 9, 9], [4, 5, 6], [7, 7, 7]])  # 18 numbers a place
    expected = (states @ item_weights.T).gather(1, choices - 1)
    monkeypatch.setattr(functional, skipped, lambda *_: pytest.fail("the other way is cheaper"))
    scores = scores_of(states, item_weights, choices)
    torch.testing.assert_close(scores, expected)
    of_both = [torch.autograd.grad(value.square().sum(), (states, item_weights)) for value in (scores, expected)]
    for ours, theirs in zip(*of_both, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_negatives_are_uniform_over_what_the_user_does_not_have() -> None:
    seen = np.zeros((2, 10), dtype=bool)
    seen[0, [0, 1, 2, 3]] = seen[1, [9]] = True  # user 0 has items 1..4, user 1 has 10
    owners = np.array([0, 1, 0])
    negatives = draw_negatives(seen, owners, 4_000, np.random.default_rng(0))
    assert negatives.shape == (3, 4_000)
    for place, items in ((0, range(5, 11)), (1, range(1, 10)), (2, range(5, 11))):
        counts = np.bincount(negatives[place], minlength=11)
        assert counts.sum() == counts[list(items)].sum()
        assert chisquare(counts[list(items)]).pvalue > 0.001


@pytest.mark.parametrize("loss", ["bce", "gbce"])
def test_negatives_come_from_outside_of_the_whole_training_history(
    loss: str, make_network: Make, ring: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    calibrations: set[float] = set()

    def spy_negatives(seen: np.ndarray, owners: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        items = draw_negatives(seen, owners, n, rng)
        drawn.append((owners, items))
        return items

    def spy_loss(scores: torch.Tensor, n_items: int, t: float) -> torch.Tensor:
        calibrations.add(t)
        return binary_loss(scores, n_items, t)

    users = np.array([4, 9, 30])
    windows = Histories.of([ring.training[user][2:5] for user in users])
    monkeypatch.setattr(next_item, "draw_windows", lambda split, n, length, rng: (users, windows))
    monkeypatch.setattr(next_item, "draw_negatives", spy_negatives)
    monkeypatch.setattr(next_item, "binary_loss", spy_loss)
    list(training_of(SETTINGS[loss], ring, make_network)._losses(np.random.default_rng(0)))
    [(owners, items)] = drawn
    assert owners.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for owner, negatives in zip(owners, items, strict=True):
        assert not np.isin(negatives, ring.training[int(users[owner])]).any()
    assert calibrations == {0.75 if loss == "gbce" else 0.0}


class Fixed:
    """A model that recommends items 1..10 to everybody."""

    def recommend(self, histories: Histories, k: int, allowed: np.ndarray | None = None) -> Slates:
        assert len(histories) <= recommender.MOST_USERS
        items = np.tile(np.arange(1, k + 1), (len(histories), 1))
        return Slates(items, np.zeros(items.shape, dtype=np.float32))


def test_validation_is_by_ndcg_of_the_validation_users_some_at_once(
    ring: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "MOST_USERS", 2)
    gains = [1 / np.log2(item + 1) if item <= 10 else 0.0 for item in ring.validation.ground_truth]
    assert validation_loss(Fixed(), ring) == pytest.approx(1 - np.mean(gains))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "sizes"), [("gbce", [6, 6, 5, 5, 1]), ("softmax", [23])])
def test_a_part_has_no_more_logits_than_the_sizes_allow_where_the_loss_holds_them(
    name: str,
    sizes: list[int],
    make_network: Make,
    ring: Split,
    monkeypatch: pytest.MonkeyPatch,
    cut_into: Callable[..., None],
) -> None:
    windows = Histories.of([[1], [1, 2], [1, 2, 3, 4, 5, 6], [1, 2], [1, 2, 3], [1, 2], [1], [1, 2, 3, 4, 5, 6]])
    monkeypatch.setattr(next_item, "draw_windows", lambda split, n, length, rng: (np.arange(8), windows))
    cut_into(scores_per_part=6 * 12)  # six places of 12 items
    training, n_places, part_loss = training_of(SETTINGS[name], ring, make_network), [], NextItemTraining._part_loss

    def noted(self: NextItemTraining, users: np.ndarray, part: Histories, rng: np.random.Generator) -> torch.Tensor:
        n_places.append(len(part.values))
        return part_loss(self, users, part, rng)

    monkeypatch.setattr(NextItemTraining, "_part_loss", noted)
    list(training._losses(np.random.default_rng(0)))
    assert n_places == sizes


@pytest.mark.parametrize("name", ["sasrec", "shifting", "bert4rec"])
def test_data_too_small_to_validate_by_is_refused_at_once(name: str, ring: Split) -> None:
    configs = {"sasrec": SASRecConfig, "shifting": ShiftingConfig, "bert4rec": Bert4RecConfig}
    with pytest.raises(InputError, match="lists of K = 10 items can't be made for user"):
        kinds.training_of(configs[name](), ring)
