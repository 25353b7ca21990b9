"""Stage 1: equation (6), its budgets, and that the best is kept and resumed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gptrec_rl.config import PretrainConfig
from gptrec_rl.data import Catalogue, Histories, Interactions, Split
from gptrec_rl.decoding.next_k import NextK
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.learning.pretraining import Example, Pretraining, slate_loss
from gptrec_rl.learning.training import Progress
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.markov import MarkovChain, PopularityRecommender
from gptrec_rl.recommender import HistoriesLike, Slates

MakePolicy = Callable[..., GPTRec]
SMALL = PretrainConfig(batch_size=16, warmup_steps=1, learning_rate=0.01, precision="fp32", max_steps=4)


def pretraining(student: GPTRec, split: Split, **settings: object) -> Pretraining:
    config = PretrainConfig.model_validate(SMALL.model_dump() | settings)
    return Pretraining(student, MarkovChain(split), split, config)


def run(training: Pretraining) -> list[Progress]:
    seen: list[Progress] = []
    training.run(seen.append)
    return seen


def test_the_loss_is_equation_6(make_policy: MakePolicy, plain_log_probs: Callable[..., torch.Tensor]) -> None:
    policy = make_policy()
    histories, lists = [[], [7, 2, 9], [12, 1, 2, 3, 4, 5, 6]], [[1, 2, 3], [4, 1, 12], [11, 10, 7]]
    may = np.array([[item not in history for item in range(1, 13)] for history in histories])
    example = Example(Histories.of(histories), np.array(lists)[:, None], torch.from_numpy(may))
    terms = [
        -float(plain_log_probs(policy, history, items[:place], may[row])[items[place] - 1])
        for row, (history, items) in enumerate(zip(histories, lists, strict=True))
        for place in range(3)
    ]
    assert slate_loss(policy, example).item() == pytest.approx(sum(terms) / 9, abs=1e-4)


def test_a_student_learns_its_teachers_lists(make_policy: MakePolicy, ring: Split) -> None:
    student = make_policy()
    training = pretraining(student, ring, max_steps=100, validate_every=50)
    progress = run(training)
    losses = [p.loss for p in progress]
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    histories = ring.test.histories
    taught, learned = MarkovChain(ring).recommend(histories, 3), NextK(student).recommend(histories, 3)
    assert (taught.items == learned.items).mean() > 0.8


def test_the_step_budget_ends_training_with_a_validation(make_policy: MakePolicy, ring: Split) -> None:
    training = pretraining(make_policy(), ring, max_steps=5, validate_every=2)
    progress = run(training)
    assert [p.step for p in progress] == [1, 2, 3, 4, 5]
    assert [p.validation_loss is not None for p in progress] == [False, True, False, True, True]
    assert [p.fraction for p in progress] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert training.is_done


def test_a_warm_up_takes_a_tenth_of_the_budget_at_most(make_policy: MakePolicy, ring: Split) -> None:
    training = pretraining(make_policy(), ring, max_steps=40, warmup_steps=1000, learning_rate=0.01)
    factors = []
    for training.step in (0, 2, 4, 20):
        factors.append(training._learning_rate_factor())
    # Warm-up: 1/1000 in the first step, then step / 40 / 0.1 = 0.5, 1, 1; times (1 + cos(pi step / 40)) / 2.
    assert factors == pytest.approx([0.001, 0.5 * 0.993844, 0.975528, 0.5], abs=1e-6)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(make_policy: MakePolicy, ring: Split) -> None:
    training = pretraining(make_policy(), ring, max_steps=4, warmup_steps=2, learning_rate=0.01)
    rates: list[float] = []
    training.run(lambda progress: rates.append(training._optimiser.param_groups[0]["lr"]))
    # 0.01 x warm-up x (1 + cos(pi step / 4)) / 2 for steps 0..3; cos(pi / 4) = 0.7071.
    assert rates == pytest.approx([0.005, 0.01 * 1.7071 / 2, 0.005, 0.01 * 0.2929 / 2], rel=1e-3)


def test_without_a_budget_the_rate_stays_and_patience_ends_training(make_policy: MakePolicy, ring: Split) -> None:
    settings = {"max_steps": None, "validate_every": 2, "patience": 3, "learning_rate": 1e-30}
    training = pretraining(make_policy(), ring, **settings)
    progress = run(training)
    # The first validation, after 2 steps, is the best; 3 more are no better.
    assert len(progress) == 8
    assert {p.fraction for p in progress} == {None}
    assert training._optimiser.param_groups[0]["lr"] == 1e-30


def test_the_time_budget_counts_steps_and_validations(
    make_policy: MakePolicy, ring: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()  # a second passes between any two looks at it
    monkeypatch.setattr("gptrec_rl.learning.training.time", SimpleNamespace(monotonic=lambda: next(clock)))
    training = pretraining(make_policy(), ring, max_steps=None, max_minutes=0.1, validate_every=3)
    progress = run(training)
    # 6 seconds: 1 a step and 1 for the validation after step 3, so 5 steps, and a validation at the end.
    assert [p.elapsed_s for p in progress] == [1, 2, 4, 5, 7]
    assert progress[-1].validation_loss is not None
    assert [p.fraction for p in progress] == [1 / 6, 2 / 6, 4 / 6, 5 / 6, 1.0]  # of the budget, not 7 / 6
    assert [p.examples_per_s for p in progress] == [16] * 5


def test_the_student_ends_as_the_best_by_validation(make_policy: MakePolicy, ring: Split) -> None:
    student = make_policy()
    training = pretraining(student, ring, validate_every=1, max_steps=None, patience=3, learning_rate=0.1)
    progress = run(training)
    validations = [p.validation_loss for p in progress if p.validation_loss is not None]
    assert progress[-1].best_validation_loss == training.best_loss == min(validations)
    assert min(validations) < min(validations[-3:])
    assert student.to_files() == training.best_files
    assert training._validate() == pytest.approx(min(validations), rel=1e-5)
    assert not student.training


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_training_ends_as_an_unbroken_one(dropout: float, make_policy: MakePolicy, ring: Split) -> None:
    settings = {"max_steps": 12, "validate_every": 3}
    unbroken = pretraining(make_policy(dropout=dropout), ring, **settings)
    saved: dict[str, bytes] = {}
    unbroken.run(lambda p: saved.update(unbroken.to_files()) if p.step == 7 else None)
    resumed = pretraining(make_policy(dropout=dropout), ring, **settings)
    resumed.resume(saved)
    assert resumed.step == 7
    assert 0 < resumed.elapsed_s < unbroken.elapsed_s
    assert resumed.best_loss < np.inf
    progress = run(resumed)
    assert [p.step for p in progress] == [8, 9, 10, 11, 12]
    assert resumed.best_loss == unbroken.best_loss
    assert resumed.best_files == unbroken.best_files
    ours, theirs = resumed.to_files(), unbroken.to_files()
    assert all(ours[name] == theirs[name] for name in theirs if name != "counters.json")  # it holds seconds


def test_patience_is_counted_across_a_resume(make_policy: MakePolicy, ring: Split) -> None:
    settings = {"max_steps": None, "validate_every": 1, "patience": 4, "learning_rate": 1e-30}
    first = pretraining(make_policy(), ring, **settings)
    saved: dict[str, bytes] = {}
    first.run(lambda p: saved.update(first.to_files()) if p.step == 3 else None)
    resumed = pretraining(make_policy(), ring, **settings)
    resumed.resume(saved)
    assert [p.step for p in run(resumed)] == [4, 5]  # 2 of the 4 were used up


def test_a_finished_training_that_is_resumed_gives_its_best(make_policy: MakePolicy, ring: Split) -> None:
    first = pretraining(make_policy(), ring)
    run(first)
    again = pretraining(make_policy(seed=1), ring)
    again.resume(first.to_files())
    assert run(again) == []
    assert again.network.to_files() == first.best_files


class Recorder:
    """A teacher that remembers what it was asked."""

    def __init__(self, teacher: PopularityRecommender) -> None:
        self.asked: list[Histories] = []
        self._teacher = teacher

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        self.asked.append(Histories.of(histories))
        return self._teacher.recommend(histories, k, allowed)


def test_validation_users_are_never_trained_on(make_policy: MakePolicy) -> None:
    """Item 12 starts the histories of the validation users and no others; 11 is everybody's test item."""
    ids = np.array([str(item) for item in range(1, 13)])
    users = np.array([str(user) for user in range(20)])
    histories = Histories.of([[12 if user < 8 else 10, *range(1, 2 + user % 6), 11] for user in range(20)])
    split = Split(Interactions(Catalogue(ids, ids), users, histories, "marked"), np.arange(8))
    recorder = Recorder(PopularityRecommender(split))
    config = SMALL.model_copy(update={"batch_size": 4, "validate_every": 2})
    Pretraining(make_policy(), recorder, split, config).run()
    of_validation, *of_training = recorder.asked  # validation lists are asked for once
    assert (of_validation.values == 12).sum() == 8
    assert len(of_training) == 4
    for batch in of_training:
        assert len(batch) == 4
        assert 12 not in batch.values
        assert 11 not in batch.values


def test_parts_are_of_similar_length_and_bounded(
    make_policy: MakePolicy, ring: Split, cut_into: Callable[..., None]
) -> None:
    cut_into(tokens_per_part=80)
    recorder = Recorder(PopularityRecommender(ring))
    training = Pretraining(make_policy(), recorder, ring, SMALL.model_copy(update={"max_steps": 1}))
    recorder.asked.clear()
    training.run()
    assert sum(map(len, recorder.asked)) == 16
    for part, shorter in itertools.pairwise(recorder.asked):
        assert np.minimum(part.lengths, 5).min() >= np.minimum(shorter.lengths, 5).max()  # n = 5 items are read
    for part in recorder.asked:
        assert len(part) * (min(int(part.lengths.max()), 5) + 3) <= 80


def test_parts_change_neither_loss_nor_step(
    make_policy: MakePolicy, ring: Split, cut_into: Callable[..., None]
) -> None:
    outcomes: list[tuple[list[float], float]] = []
    for tokens in (4096, 1):  # the whole batch, and as few histories at a time as there may be
        cut_into(tokens_per_part=tokens)
        training = pretraining(make_policy(), ring, learning_rate=1e-3)
        outcomes.append(([p.loss for p in run(training)], training.best_loss))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], abs=1e-3)
    assert outcomes[0][1] == pytest.approx(outcomes[1][1], abs=1e-3)


def test_a_seed_decides_everything(make_policy: MakePolicy, ring: Split) -> None:
    one, same, other = (pretraining(make_policy(), ring, seed=seed) for seed in (0, 0, 1))
    losses = [[p.loss for p in run(training)] for training in (one, same, other)]
    assert losses[0] == losses[1] != losses[2]


def test_a_model_of_another_catalogue_is_refused(make_policy: MakePolicy, ring: Split) -> None:
    with pytest.raises(InputError, match="for 13 items and the catalogue has 12"):
        pretraining(make_policy(n_items=13), ring)


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(
    make_policy: MakePolicy, ring: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_policy()
    training = pretraining(student, ring)
    before = {name: weights.clone() for name, weights in student.state_dict().items()}
    monkeypatch.setattr("gptrec_rl.learning.pretraining.slate_loss", lambda policy, *_: loss_of(policy) * np.nan)
    with pytest.raises(DivergedError, match=r"the loss is nan at step 0.*learning_rate below 0\.01"):
        training.run()
    for name, weights in student.state_dict().items():
        assert torch.equal(weights, before[name])


def loss_of(policy: GPTRec) -> torch.Tensor:
    return sum((weights.sum() for weights in policy.parameters()), torch.zeros(()))
