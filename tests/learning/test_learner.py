"""The Learner: exact at lag 0, learning what the goal says, also from lists of an older policy."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from gptrec_rl.config import PpoConfig
from gptrec_rl.data import Histories
from gptrec_rl.decoding.masking import chosen_log_probs, slate_log_probs
from gptrec_rl.goals import Goal
from gptrec_rl.learning import gae, losses
from gptrec_rl.learning.learner import Learner
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.sequence import Bucket, Sequences
from gptrec_rl.models.value import ValueModel
from gptrec_rl.models.work_sizes import WORK_SIZES
from gptrec_rl.recommender import candidates

MakePolicy = Callable[..., GPTRec]
RollOut = Callable[..., Rollout]
GOAL = Goal({"r": 1.0})


def low_items(slates: np.ndarray, *_: object) -> np.ndarray:
    """Reward items 1 to 4."""
    return (slates <= 4).astype(np.float32)


def constant(slates: np.ndarray, *_: object) -> np.ndarray:
    return np.full(slates.shape, 0.1, dtype=np.float32)


LOW = {"r": low_items}


def make_learner(student: GPTRec, goal: Goal = GOAL, **settings: object) -> Learner:
    return Learner(student, goal, PpoConfig.model_validate({"baseline": "value"} | settings), precision="fp32")


def test_a_student_of_dropout_is_learned_from_without(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy(dropout=0.5)
    batch = roll_out(student, LOW)
    student.train()
    seen = []
    for seed in (1, 2):  # of a dropout that there ought not to be
        torch.manual_seed(seed)
        seen.append(make_learner(student, passes=1, kl_weight=1.0).update(batch))
    assert seen[0].ratio_error < 1e-4
    assert seen[0].reference_kl < 1e-6
    assert seen[0] == seen[1]


def test_making_a_learner_leaves_random_numbers_as_they_are(make_policy: MakePolicy) -> None:
    before = torch.get_rng_state()
    make_learner(make_policy())
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_are_made_once_a_batch_for_both_models_and_all_passes(
    make_policy: MakePolicy, roll_out: RollOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, made, make = make_policy(), [], Sequences._masked

    def noted(sequences: Sequences, bucket: Bucket) -> torch.Tensor:
        made.append(bucket)
        return make(sequences, bucket)

    monkeypatch.setattr(Sequences, "_masked", noted)
    make_learner(student, passes=3).update(roll_out(student, LOW))
    assert made
    assert len(made) == len({id(bucket) for bucket in made})


# Lag 0


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_at_lag_0_every_ratio_is_1(temperature: float, make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    for seed in range(3):
        batch = roll_out(student, LOW, seed, temperature=temperature)
        assert (batch.histories.lengths > student.history_length).any()
        stats = make_learner(student, passes=1).update(batch)
        assert stats.ratio_error < 1e-4
        assert stats.clip_fraction == 0


def leave_out_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gptrec_rl.learning.learner.candidates", lambda histories, *_: np.ones((len(histories), 12), dtype=bool)
    )


def leave_out_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_last_five(histories: Histories, *rest: object) -> np.ndarray:
        return candidates(Histories.of([history[-5:] for history in histories]), *rest)

    monkeypatch.setattr("gptrec_rl.learning.learner.candidates", of_the_last_five)


def leave_out_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gptrec_rl.decoding.masking.mask_taken",
        lambda logits, may, slates, never: logits.masked_fill_(~may[:, None, None, :], never),
    )


def leave_out_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gptrec_rl.learning.learner.chosen_log_probs",
        lambda states, item_weights, may, slates, *_: chosen_log_probs(states, item_weights, may, slates),
    )


@pytest.mark.parametrize(
    "leave_out", [leave_out_seen, leave_out_unread, leave_out_earlier, leave_out_temperature], ids=lambda f: f.__name__
)
def test_a_mask_left_out_shows_in_the_ratios(
    leave_out: Callable[[pytest.MonkeyPatch], None],
    make_policy: MakePolicy,
    roll_out: RollOut,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = make_policy()
    batch = roll_out(student, LOW, temperature=1.7)
    leave_out(monkeypatch)
    assert make_learner(student, passes=1).update(batch).ratio_error > 0.01


# Learning


@pytest.mark.parametrize("baseline", ["value", "group"])
def test_what_is_learned_does_not_depend_on_how_the_work_is_cut(
    baseline: str,
    make_policy: MakePolicy,
    roll_out: RollOut,
    monkeypatch: pytest.MonkeyPatch,
    cut_into: Callable[..., None],
) -> None:
    monkeypatch.setattr("gptrec_rl.models.sequence.WIDTH_STEP", 2)
    student = make_policy()
    batch = roll_out(student, LOW)
    learners = [make_learner(student, baseline=baseline, passes=1) for _ in range(2)]
    coarse = dataclasses.asdict(WORK_SIZES["cuda"])
    cut_into(padding_per_bucket=0)
    fine = learners[0].update(batch)
    n_buckets = len(learners[0]._laid_out(batch).sequences.buckets)
    cut_into(**coarse)
    assert len(learners[1]._laid_out(batch).sequences.buckets) == 1 < n_buckets
    assert dataclasses.asdict(learners[1].update(batch)) == pytest.approx(dataclasses.asdict(fine), abs=1e-5)
    for one, other in zip(*(learner.policy.parameters() for learner in learners), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("baseline", ["value", "group"])
def test_updates_raise_the_reward(baseline: str, make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, baseline=baseline, policy_learning_rate=3e-3, value_learning_rate=3e-3)
    rewards = [learner.update(roll_out(learner.policy, LOW, seed)).reward for seed in range(40)]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.5  # of a list of 3 items, at most 3


@pytest.mark.parametrize("baseline", ["value", "group"])
def test_a_goal_of_whole_lists_is_reached_through_equation_2(
    baseline: str, make_policy: MakePolicy, roll_out: RollOut
) -> None:
    goal = Goal({"calibration": 1.0})
    settings = {"baseline": baseline, "policy_learning_rate": 3e-3, "value_learning_rate": 3e-3}
    learner = make_learner(make_policy(), goal, **settings)
    first = roll_out(learner.policy, "calibration", 0)
    assert (first.rewards["calibration"][..., :-1] == 0).all()
    assert (first.rewards["calibration"][..., -1] > 0).any()
    rewards = [learner.update(roll_out(learner.policy, "calibration", seed)).reward for seed in range(40)]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 0.05


def test_the_value_model_learns_to_explain_returns(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    learner = make_learner(student, policy_learning_rate=1e-9, value_learning_rate=3e-3)
    stats = [learner.update(roll_out(student, LOW, seed)) for seed in range(30)]
    assert np.mean([s.explained_variance for s in stats[-5:]]) > 0.15 > stats[0].explained_variance
    assert np.mean([s.value_loss for s in stats[-5:]]) < 0.8 * np.mean([s.value_loss for s in stats[:5]])


def test_rewards_are_weighted_by_the_goal(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(student, LOW | {"c": constant})
    stats = make_learner(student, Goal({"r": 2.0, "c": -1.0})).update(batch)
    expected = 2 * batch.rewards["r"].sum(axis=-1).mean() - 3 * 0.1  # K = 3 places of 0.1
    assert stats.reward == pytest.approx(float(expected), rel=1e-5)


def gradients_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Return what the last pass left, of policy and value model."""
    models = {"policy": learner.policy, "value": learner._value}
    return {
        f"{model_name}.{name}": weights.grad.clone()
        for model_name, model in models.items()
        if model is not None
        for name, weights in model.named_parameters()
        if weights.grad is not None
    }


def test_the_order_of_a_batch_changes_nothing(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy(history_length=10)
    batch, order = roll_out(student, LOW), np.random.default_rng(0).permutation(16)
    assert len(set(batch.histories.lengths)) > 5
    permuted = dataclasses.replace(
        batch,
        histories=batch.histories.take(order),
        ground_truth=batch.ground_truth[order],
        slates=batch.slates[order],
        log_probs=batch.log_probs[order],
        rewards={name: rewards[order] for name, rewards in batch.rewards.items()},
    )
    one, other = (make_learner(student, passes=1, guidance=0.5, kl_weight=0.1) for _ in range(2))
    stats, same_stats = (dataclasses.asdict(x.update(y)) for x, y in ((one, batch), (other, permuted)))
    assert stats == pytest.approx(same_stats, rel=1e-4, abs=1e-5)
    gradients, same_gradients = gradients_of(one), gradients_of(other)
    assert any(name.startswith("value") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, same_gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_the_gradient_is_that_of_the_losses_over_the_whole_distribution(
    temperature: float, make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy(history_length=10)
    batch = roll_out(make_policy(history_length=10, seed=1), LOW, temperature=temperature)  # ratios that are not 1
    learner = make_learner(
        student,
        baseline="group", passes=1, gradient_clip=None, normalise_advantages=False, gamma=0.9,
        entropy_bonus=0.3, guidance=0.2, kl_weight=0.1,
    )  # fmt: skip
    learner.update(batch)
    slates, truth = torch.from_numpy(batch.slates).long(), torch.from_numpy(batch.ground_truth)
    may = torch.from_numpy(candidates(batch.histories, 12, 3, None))
    log_probs = slate_log_probs(student.slate_logits(batch.histories, slates), may, slates, temperature)
    returns = gae.discounted_returns(torch.from_numpy(batch.rewards["r"]), 0.9)
    advantages = gae.leave_one_out_advantages(returns)
    chosen = log_probs.gather(-1, slates[..., None] - 1).squeeze(-1)
    policy_loss = losses.clipped_policy_loss(chosen, torch.from_numpy(batch.log_probs), advantages, PpoConfig().clip)
    assert 0 < policy_loss.clip_fraction < 1
    guidance = log_probs[torch.arange(16), 0, 0, truth - 1].mean()
    kl = losses.mean_kl(log_probs, log_probs.detach())
    (policy_loss.loss - 0.3 * Categorical(logits=log_probs).entropy().mean() - 0.2 * guidance + 0.1 * kl).backward()
    for name, gradient in gradients_of(learner).items():
        expected = student.get_parameter(name.removeprefix("policy.")).grad
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_the_values_of_the_first_pass_serve_the_advantages(
    make_policy: MakePolicy, roll_out: RollOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, runs = make_policy(), []
    forward = ValueModel.forward

    def counted(model: ValueModel, *arguments: Any) -> torch.Tensor:
        runs.append(forward(model, *arguments))
        return runs[-1]

    monkeypatch.setattr(ValueModel, "forward", counted)
    learner = make_learner(student, passes=3, value_learning_rate=0.01)
    batch = roll_out(student, LOW)
    stats = learner.update(batch)
    assert len(runs) == 3
    assert not torch.equal(runs[0], runs[1])
    returns = learner._laid_out(batch).returns
    assert stats.explained_variance == pytest.approx(losses.explained_variance(runs[0].detach(), returns), abs=1e-6)


def test_the_student_is_not_changed(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    before = student.to_files()
    make_learner(student, kl_weight=1.0).update(roll_out(student, LOW))
    assert student.to_files() == before


# Corrections for lists of an older policy


CORRECTIONS = ("clip", "truncated", "vtrace", "decoupled")


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_correction_learns_from_a_stale_policy(
    correction: str, make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy()
    rates = {"policy_learning_rate": 3e-3, "value_learning_rate": 3e-3}
    learner = make_learner(student, correction=correction, **rates)
    stats = []
    for seed in range(40):
        if seed % 8 == 0:
            stale = copy.deepcopy(learner.policy)
        stats.append(learner.update(roll_out(stale, LOW, seed)))
    assert min(s.effective_sample_size for s in stats) < 0.9
    before, after = (
        np.mean([roll_out(policy, LOW, seed).rewards["r"].sum(axis=-1).mean() for seed in range(100, 105)])
        for policy in (student, learner.policy)
    )
    assert after > before + 0.5  # of a list of 3 items, at most 3


@pytest.mark.parametrize("correction", CORRECTIONS[1:])
def test_at_lag_0_every_correction_has_the_gradient_of_the_clip(
    correction: str, make_policy: MakePolicy, roll_out: RollOut
) -> None:
    student = make_policy()
    batch = roll_out(student, LOW)
    passes = 2 if correction == "decoupled" else 1
    settings = {"passes": passes, "gamma": 0.9, "gae_lambda": 0.5, "gradient_clip": None}
    one, other = (make_learner(student, correction=name, **settings) for name in (correction, "clip"))
    stats = one.update(batch)
    other.update(batch)
    assert stats.effective_sample_size == pytest.approx(1, abs=1e-6)
    expected = gradients_of(other)
    for name, gradient in gradients_of(one).items():
        if name.startswith("policy"):
            torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


def test_the_values_learn_the_targets_of_v_trace(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(make_policy(seed=1), LOW)
    settings = {"correction": "vtrace", "truncation": 1.5, "passes": 1, "gamma": 0.9, "gae_lambda": 0.5}
    learner = make_learner(student, normalise_advantages=False, **settings)
    laid_out = learner._laid_out(batch)
    outputs = learner._outputs(laid_out)
    assert outputs.values is not None
    ratios = (outputs.log_probs - laid_out.behaviour_log_probs).detach().exp()
    weights = torch.minimum(ratios, torch.tensor(1.5))
    traced = gae.v_trace(laid_out.rewards, outputs.values, weights, 0.9, 0.5)
    stats = learner.update(batch)
    assert stats.value_loss == pytest.approx(((outputs.values - traced.targets) ** 2).mean().item(), rel=1e-5)
    loss = -(weights * traced.advantages * outputs.log_probs).mean().item()
    assert stats.policy_loss == pytest.approx(loss, rel=1e-5)
    assert stats.clip_fraction == pytest.approx((ratios > 1.5).float().mean().item())
    assert 0 < stats.clip_fraction < 1


def test_decoupled_ppo_clips_what_moved_since_the_first_pass(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(make_policy(seed=1), LOW)  # its ratios are past the clip from the start
    still, moving = (
        make_learner(student, correction="decoupled", policy_learning_rate=rate, weight_decay=0.0).update(batch)
        for rate in (1e-12, 0.01)
    )
    assert still.ratio_error > 0.2
    assert still.clip_fraction == 0 < moving.clip_fraction


def test_the_effective_sample_size_is_that_of_the_first_pass(make_policy: MakePolicy, roll_out: RollOut) -> None:
    student = make_policy()
    batch = roll_out(make_policy(seed=1), LOW)
    learner = make_learner(student, policy_learning_rate=0.01, passes=3)
    laid_out = learner._laid_out(batch)
    ratios = (learner._outputs(laid_out).log_probs - laid_out.behaviour_log_probs).detach().exp()
    expected = float(ratios.sum() ** 2 / (ratios**2).sum()) / ratios.numel()
    assert learner.update(batch).effective_sample_size == pytest.approx(expected, rel=1e-4)
    assert expected < 0.9
