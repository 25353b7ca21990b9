"""The plain ways do the same work as the library: the same log-probabilities, the same lists, the same gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import accuracy, plain, work
from benchmarks.ways import flattened
from gptrec_rl.data import Histories
from gptrec_rl.decoding.next_k import generate

HISTORIES = [[4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: short, full and too long


@pytest.mark.parametrize("way", [plain.generate, plain.generate_cached])
def test_plain_lists_and_log_probabilities_are_the_librarys(way, make_policy):
    policy = make_policy()
    written = generate(policy, Histories.of(HISTORIES), 3)
    lists, log_probs = way(policy.network, HISTORIES, 5, 3, None)
    assert torch.equal(lists, written.items[:, 0])
    assert log_probs == pytest.approx(written.log_probs[:, 0], abs=1e-4)


def test_sampled_lists_hold_nothing_twice_and_nothing_seen(make_policy):
    policy, sampler = make_policy(), torch.Generator().manual_seed(0)
    for way in (plain.generate, plain.generate_cached):
        lists, _ = way(policy.network, HISTORIES, 5, 3, sampler)
        for history, items in zip(HISTORIES, lists.tolist(), strict=True):
            assert len({*items} - {*history, 0, 13}) == 3


def test_log_probabilities_of_whole_lists_are_those_of_generation(make_policy):
    network = make_policy().network
    lists, log_probs = plain.generate(network, HISTORIES, 5, 3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for width in (None, 5):
            given = plain.list_log_probs(network, HISTORIES, lists, 5, width)
            assert given == pytest.approx(log_probs, abs=1e-4)


def test_fp32_is_exact_and_a_wrong_reading_of_lists_would_show(make_policy):
    policy = make_policy()
    errors = accuracy.errors(policy, Histories.of(HISTORIES), "fp32")
    assert errors["log_prob_max"] < 1e-4
    assert errors["ratio_max"] < 1e-4
    assert errors["distance"] < 1e-4
    rollout = accuracy.sampled(policy, Histories.of(HISTORIES), 2, "fp32")
    swapped = flattened(rollout).lists.flip(1)
    wrong = plain.list_log_probs(policy.network, flattened(rollout).histories, swapped, 5)
    assert (wrong - flattened(rollout).log_probs).abs().max() > 0.01


def test_an_update_follows_its_rewards(make_policy):
    policy = make_policy()
    rollout = flattened(work.rollout(Histories.of(HISTORIES), 2, n_items=12, k=3))
    learner = plain.Ppo(policy.network, 5)
    before = plain.list_log_probs(learner.policy, rollout.histories, rollout.lists, 5).detach()
    rewards = torch.zeros(8, 3)
    rewards[0, 2] = 1.0  # the first list earns, the others don't
    for _ in range(20):
        learner.update(replace(rollout, log_probs=before, rewards=rewards))
    after = plain.list_log_probs(learner.policy, rollout.histories, rollout.lists, 5).detach()
    assert (after - before)[0].sum() > 0


def test_stage_1_learns_the_teachers_lists(make_policy):
    student = plain.Pretraining(make_policy().network, 5)
    lists = torch.tensor([[1, 2, 3], [4, 5, 6], [2, 4, 6], [8, 9, 10]])
    losses = [student.update(HISTORIES, lists) for _ in range(10)]
    assert losses[-1] < losses[0]
