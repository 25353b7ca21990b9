"""The Learner: obedient to every switch, unharmed by losses that are not finite, and the same after a resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from gptrec_rl.config import PpoConfig
from gptrec_rl.decoding.masking import slate_log_probs
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.goals import Goal
from gptrec_rl.learning import corrections, gae, losses
from gptrec_rl.learning.learner import Learner
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.recommender import candidates

MakePolicy = Callable[..., GPTRec]
RollOut = Callable[..., Rollout]
GOAL = Goal({"r": 1.0})


def low_items(slates: np.ndarray, *_: object) -> np.ndarray:
    """Reward items 1 to 4."""
    return (slates <= 4).astype(np.float32)


def constant(slates: np.ndarray, *_: object) -> np.ndarray:
    return np.full(slates.shape, 0.1, dtype=np.float32)


def nothing(slates: np.ndarray, *_: object) -> np.ndarray:
    return np.zeros(slates.shape, dtype=np.float32)


LOW = {"r": low_items}
CONSTANT = {"r": constant}


def make_learner(student: GPTRec, goal: Goal = GOAL, **settings: object) -> Learner:
    return Learner(student, goal, PpoConfig.model_validate({"baseline": "value"} | settings), precision="fp32")


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: weights.clone() for name, weights in learner.policy.state_dict().items()}


def has_moved(learner: Learner, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(weights, before[name]) for name, weights in learner.policy.state_dict().items())


def log_probs_of(policy: GPTRec, batch: Rollout) -> torch.Tensor:
    """Return the choices' masked log-probabilities, [B, G, K, I]."""
    slates = torch.from_numpy(batch.slates).long()
    may = torch.from_numpy(candidates(batch.histories, policy.n_items, slates.shape[2], None))
    with torch.no_grad():
        return slate_log_probs(policy.slate_logits(batch.histories, slates), may, slates, batch.temperature)


# Switches


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("n_lists", [2, 3, 4])
def test_equal_rewards_leave_the_policy_as_it_is_to_the_bit(
    normalise: bool, n_lists: int, make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy()
    learner = make_learner(student, baseline="group", normalise_advantages=normalise, weight_decay=0.1)
    learner.update(roll_out(student, LOW, n_lists=n_lists))  # from here on Adam has momentum
    before, state = weights_of(learner), learner.to_files()
    stats = learner.update(roll_out(student, CONSTANT, n_lists=n_lists))
    assert not has_moved(learner, before)
    assert learner.to_files()["policy_optimiser.safetensors"] == state["policy_optimiser.safetensors"]
    assert (learner.step, stats.n_skipped) == (2, 0)


def test_where_advantages_are_0_the_value_model_learns_all_the_same(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, normalise_advantages=False)
    values = learner._value
    assert values is not None
    with torch.no_grad():
        for weights in values.parameters():
            weights.zero_()  # V is 0, and so are rewards of 0 less V
    before, state = weights_of(learner), learner.to_files()
    learner.update(roll_out(student, {"r": nothing}))
    assert not has_moved(learner, before)
    assert learner.to_files()["value_optimiser.safetensors"] != state["value_optimiser.safetensors"]


def test_weight_decay_shrinks_weights_that_nothing_else_moves(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    settings = {"baseline": "group", "passes": 1, "weight_decay": 0.5, "policy_learning_rate": 0.1}
    learner = make_learner(student, entropy_bonus=1e-30, **settings)  # too little to move one
    before = weights_of(learner)
    learner.update(roll_out(student, CONSTANT))
    for name, weights in learner.policy.state_dict().items():
        torch.testing.assert_close(weights, before[name] * 0.95)  # 1 - 0.1 x 0.5


def test_two_passes_are_two_updates_on_the_same_batch(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    twice, once = (make_learner(student, baseline="group", passes=passes) for passes in (2, 1))
    twice.update(batch)
    once.update(batch)
    before = weights_of(once)
    once.update(batch)
    assert has_moved(once, before)
    assert not has_moved(twice, weights_of(once))
    assert (twice.step, once.step) == (1, 2)


def test_stats_are_means_over_passes(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    twice, once = (make_learner(student, passes=n, baseline="group", policy_learning_rate=0.01) for n in (2, 1))
    both, first, second = twice.update(batch), once.update(batch), once.update(batch)
    for name in ("policy_loss", "clip_fraction", "approx_kl", "entropy", "gradient_norm"):
        mean = (getattr(first, name) + getattr(second, name)) / 2
        assert getattr(both, name) == pytest.approx(mean, rel=1e-5), name
    assert second.clip_fraction > 0
    assert both.ratio_error < 1e-4 < second.ratio_error  # of the first pass


@pytest.mark.parametrize("normalise", [True, False])
def test_advantages_are_normalised_on_demand(normalise: bool, make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    learner = make_learner(student, normalise_advantages=normalise, passes=1, gamma=0.9, gae_lambda=0.5)
    laid_out = learner._laid_out(batch)
    values = learner._outputs(laid_out).values
    assert values is not None
    advantages = gae.generalised_advantages(laid_out.rewards, values.detach(), 0.9, 0.5)
    assert abs(advantages.mean().item()) > 0.01
    expected = 0.0 if normalise else -advantages.mean().item()  # all ratios are 1
    assert learner.update(batch).policy_loss == pytest.approx(expected, abs=1e-5)


def test_the_clip_bounds_what_counts_as_clipped(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    narrow, wide = (make_learner(student, clip=clip, policy_learning_rate=1e-3) for clip in (1e-3, 100.0))
    assert narrow.update(batch).clip_fraction > 0.1
    assert wide.update(batch).clip_fraction == 0


def test_the_gradient_clip_bounds_the_step_and_the_norm_is_of_before(
    make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    # Adam's steps don't depend on the gradient's size until it nears its epsilon of 1e-8.
    free, held = (make_learner(student, gradient_clip=clip, passes=1, weight_decay=0.0) for clip in (None, 1e-12))
    norms = [learner.update(batch).gradient_norm for learner in (free, held)]
    assert norms[0] == norms[1] > 0.01
    moves = [
        max(float((weights_of(learner)[name] - old).abs().max()) for name, old in student.state_dict().items())
        for learner in (free, held)
    ]
    assert moves[0] > 1e-5
    assert moves[1] < 1e-8


def test_the_value_clip_keeps_the_loss_of_values_that_ran_ahead(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    free, held = (make_learner(student, value_clip=clip, value_learning_rate=0.01) for clip in (None, 1e-6))
    assert held.update(batch).value_loss > free.update(batch).value_loss * 1.01


def test_the_entropy_bonus_spreads_the_choices(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, CONSTANT)
    settings = {"baseline": "group", "passes": 1, "policy_learning_rate": 3e-3}
    learner = make_learner(student, entropy_bonus=1.0, **settings)
    entropies = [learner.update(batch).entropy for _ in range(15)]
    assert entropies[0] == pytest.approx(
        Categorical(logits=log_probs_of(student, batch)).entropy().mean().item(), abs=1e-5
    )
    assert entropies[-1] > entropies[0] + 0.05


def test_guidance_raises_the_ground_truth_as_first_item(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, CONSTANT)

    def first_choice_of_truth(policy: GPTRec) -> float:
        rows = torch.arange(len(batch.ground_truth))
        return float(log_probs_of(policy, batch)[rows, 0, 0, torch.from_numpy(batch.ground_truth) - 1].mean())

    learner = make_learner(student, baseline="group", guidance=1.0, policy_learning_rate=3e-3)
    for _ in range(10):
        learner.update(batch)
    assert first_choice_of_truth(learner.policy) > first_choice_of_truth(student) + 0.3


def test_the_kl_penalty_holds_the_policy_at_the_student(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    kls = {}
    for weight in (0.0, 10.0):
        learner = make_learner(student, kl_weight=weight, policy_learning_rate=3e-3)
        stats = [learner.update(batch) for _ in range(10)]
        kls[weight] = float(losses.mean_kl(log_probs_of(learner.policy, batch), log_probs_of(student, batch)))
    assert kls[10.0] < 0.2 * kls[0.0]
    assert 0 < stats[-1].reference_kl < 5 * kls[10.0]


def test_the_reference_is_run_once_a_batch(
    make_policy: MakePolicy, roll_out: RollOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, run, states = make_policy(), [], Learner._states
    learner = make_learner(student, passes=3, kl_weight=0.5)

    def noted(self: Learner, policy: GPTRec, *others: Any) -> torch.Tensor:
        run.append(policy)
        return states(self, policy, *others)

    monkeypatch.setattr(Learner, "_states", noted)
    learner.update(roll_out(student, LOW))
    assert [policy is learner.policy for policy in run].count(False) == 1
    assert len(run) == 4


def test_without_a_penalty_no_reference_is_measured(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student)
    learner.update(roll_out(student, LOW))
    assert learner.update(roll_out(student, LOW)).reference_kl == 0


def test_the_kl_weight_adapts_to_its_target(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    low, high, fixed = (
        make_learner(student, kl_weight=1.0, kl_target=target, policy_learning_rate=3e-3)
        for target in (1e-6, 1e6, None)
    )
    for learner in (low, high, fixed):
        learner.update(batch)
    # The error is clipped at 0.2, a tenth of which moves the weight.
    assert [learner._kl_weight for learner in (low, high, fixed)] == pytest.approx([1.02, 0.98, 1.0])


def test_the_group_baseline_needs_no_value_model_but_other_lists(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, baseline="group", normalise_advantages=False, passes=1)
    assert not any(name.startswith("value") for name in learner.to_files())
    batch = roll_out(student, LOW)
    stats = learner.update(batch)
    assert (stats.value_loss, stats.explained_variance) == (0, 0)
    assert stats.policy_loss == pytest.approx(0, abs=1e-6)  # leave-one-out advantages sum to 0, all ratios are 1
    with pytest.raises(InputError, match=r"fleet\.n_lists"):
        learner.update(roll_out(student, LOW, n_lists=1))


# Losses that are not finite


def with_log_probs(batch: Rollout, log_prob: float) -> Rollout:
    return dataclasses.replace(batch, log_probs=np.full_like(batch.log_probs, log_prob))


def test_a_loss_that_is_not_finite_is_skipped_and_counted(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, passes=2)
    before, state = weights_of(learner), learner.to_files()
    good = roll_out(student, LOW)
    stats = learner.update(with_log_probs(good, -1e4))  # a ratio of exp(1e4)
    assert stats.n_skipped == 2
    assert not has_moved(learner, before)
    after = learner.to_files()
    assert all(after[name] == state[name] for name in state if name != "learner.json")
    assert learner.step == 1
    assert learner.update(good).n_skipped == 0
    assert has_moved(learner, before)


def test_a_gradient_that_is_not_finite_is_skipped(
    make_policy: MakePolicy, roll_out: RollOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_policy()
    learner = make_learner(student, passes=1)
    before, state = weights_of(learner), learner.to_files()
    # The square root of 0 has a finite value and an infinite gradient.
    monkeypatch.setattr(losses, "value_loss", lambda values, *_: (values - values.detach()).abs().sqrt().mean())
    assert learner.update(roll_out(student, LOW)).n_skipped == 1
    assert not has_moved(learner, before)
    assert learner.to_files()["value.safetensors"] == state["value.safetensors"]


def test_a_policy_gradient_that_is_not_finite_is_skipped_without_a_value_model_too(
    make_policy: MakePolicy, roll_out: RollOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_policy()
    learner = make_learner(student, passes=1, baseline="group")
    before, policy_loss = weights_of(learner), corrections.policy_loss

    def steep(config: PpoConfig, log_probs: torch.Tensor, *others: torch.Tensor) -> corrections.Corrected:
        right = policy_loss(config, log_probs, *others)
        return dataclasses.replace(right, loss=right.loss + (log_probs - log_probs.detach()).abs().sqrt().mean())

    monkeypatch.setattr(corrections, "policy_loss", steep)
    assert learner.update(roll_out(student, LOW)).n_skipped == 1
    assert not has_moved(learner, before)


def test_a_run_of_them_stops_with_the_weights_unharmed(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, passes=2, max_skipped_steps=5)
    before, bad = weights_of(learner), with_log_probs(roll_out(student, LOW), -1e4)
    learner.update(bad)
    learner.update(bad)
    with pytest.raises(DivergedError, match="5 losses in a row"):
        learner.update(bad)
    assert not has_moved(learner, before)


def test_a_good_loss_ends_a_run_of_bad_ones(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, passes=1, max_skipped_steps=2)
    good = roll_out(student, LOW)
    for _ in range(4):
        learner.update(with_log_probs(good, -1e4))
        learner.update(good)


# Resuming


@pytest.mark.parametrize(
    "settings",
    [{}, {"baseline": "group"}, {"kl_weight": 0.5, "kl_target": 0.01, "entropy_bonus": 0.01, "value_clip": 0.1}],
    ids=["value", "group", "adaptive KL"],
)
def test_a_resumed_learner_goes_on_bit_for_bit(
    settings: dict[str, object], make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy()
    batches = [roll_out(student, LOW, seed) for seed in range(6)]
    unbroken = make_learner(student, **settings)
    for batch in batches[:3]:
        unbroken.update(batch)
    resumed = make_learner(student, **settings)
    resumed.resume(unbroken.to_files())
    assert resumed.step == 3
    for batch in batches[3:]:
        assert resumed.update(batch) == unbroken.update(batch)
    assert resumed.to_files() == unbroken.to_files()


def test_a_resumed_learner_takes_the_kl_weight_that_is_set_now_unless_it_adapts(make_policy: MakePolicy) -> None:
    student = make_policy()
    saved = make_learner(student, kl_weight=1.0).to_files()
    for target, expected in ((None, 5.0), (0.1, 1.0)):
        resumed = make_learner(student, kl_weight=5.0, kl_target=target)
        resumed.resume(saved)
        assert resumed._kl_weight == expected


def test_skips_in_a_row_are_counted_across_a_resume(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner, resumed = (make_learner(student, passes=1, max_skipped_steps=2) for _ in range(2))
    bad = with_log_probs(roll_out(student, LOW), -1e4)
    learner.update(bad)
    resumed.resume(learner.to_files())
    with pytest.raises(DivergedError):
        resumed.update(bad)


@pytest.mark.parametrize(("saved", "now"), [("value", "group"), ("group", "value")])
def test_the_state_of_another_baseline_is_refused(saved: str, now: str, make_policy: MakePolicy) -> None:
    student = make_policy()
    files = make_learner(student, baseline=saved).to_files()
    with pytest.raises(InputError, match="disagree about the value model"):
        make_learner(student, baseline=now).resume(files)


def test_a_seed_decides_the_value_head(make_policy: MakePolicy) -> None:
    student = make_policy()
    one, same, other = (
        Learner(student, GOAL, PpoConfig(baseline="value"), "fp32", seed).to_files()["value.safetensors"]
        for seed in (0, 0, 1)
    )
    assert one == same != other


# Refusals


def test_lists_that_the_policy_can_not_have_written_are_refused(make_policy: MakePolicy, roll_out: RollOut) -> None:
    learner = make_learner(make_policy(slate_length=2))
    before = weights_of(learner)
    with pytest.raises(InputError, match="lists of 3 items and the policy writes 2"):
        learner.update(roll_out(make_policy(), LOW))
    assert not has_moved(learner, before)
    assert learner.step == 0
