"""The ways of doing the work: this library's as its services call it, and the plain ones on the same work."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from benchmarks import plain, work
from gptrec_rl.config import ModelConfig, PpoConfig, PretrainConfig
from gptrec_rl.data import Histories, Interactions, Split, SplitConfig
from gptrec_rl.decoding import NextK
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.evaluation import evaluate
from gptrec_rl.goals import parse_goal
from gptrec_rl.learning.learner import Learner
from gptrec_rl.learning.pretraining import Pretraining
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.markov import MarkovChain
from gptrec_rl.models.precision import keep_memory

CACHED_BATCH = 64
STAGE_1_STEPS = 5


def generation(
    histories: Histories, n_lists: int, n_items: int = work.N_ITEMS, model: ModelConfig = work.MODEL
) -> Callable[[], float]:
    """Sample lists as a generator does; the unit is a list."""
    keep_memory()
    writer, sampler = Writer(work.policy(n_items, model), "auto"), torch.Generator().manual_seed(0)

    def run() -> float:
        writer.write(histories, model.slate_length, n_lists, generator=sampler)
        return float(len(histories) * n_lists)

    return run


def plain_generation(histories: Histories, activation: str = "gelu_new") -> Callable[[], float]:
    """Sample one list the plain way, for another history each time."""
    keep_memory()
    network, sampler = plain.network(work.N_ITEMS, activation=activation), torch.Generator().manual_seed(0)
    turns = itertools.cycle([history.tolist() for history in histories])

    def run() -> float:
        plain.generate(network, [next(turns)], work.N, work.K, sampler)
        return 1.0

    return run


def cached_generation(histories: Histories, activation: str = "gelu_new") -> Callable[[], float]:
    """Sample a list a history with the network's own cache, in batches, in the faster of fp32 and bf16."""
    keep_memory()
    rows = [history.tolist() for history in histories]
    batches = [rows[start : start + CACHED_BATCH] for start in range(0, len(rows), CACHED_BATCH)]
    network = plain.network(work.N_ITEMS, activation=activation)
    networks = [network, copy.deepcopy(network).bfloat16()]
    sampler = torch.Generator().manual_seed(0)

    def seconds(network: GPT2LMHeadModel) -> float:
        plain.generate_cached(network, batches[0], work.N, work.K, sampler)
        started = time.perf_counter()
        plain.generate_cached(network, batches[0], work.N, work.K, sampler)
        return time.perf_counter() - started

    fastest = min(networks, key=seconds)

    def run() -> float:
        for batch in batches:
            plain.generate_cached(fastest, batch, work.N, work.K, sampler)
        return float(len(rows))

    return run


def single_list(data: Path | None, student: Path | None) -> Callable[[], float]:
    """Write the most probable list for one history, another one each time, with a recommender that is made once."""
    keep_memory()
    split = work.open_data(data)
    recommender = NextK(work.trained_policy(data, student, split)[0])
    turns = itertools.cycle(_full_test_histories(split))

    def run() -> float:
        recommender.recommend(next(turns), work.K)
        return 1.0

    return run


def plain_single_list(data: Path | None, student: Path | None) -> Callable[[], float]:
    """Write the same lists the plain way."""
    keep_memory()
    split = work.open_data(data)
    network = work.trained_policy(data, student, split)[0].network
    turns = itertools.cycle([histories[0].tolist() for histories in _full_test_histories(split)])

    def run() -> float:
        plain.generate(network, [next(turns)], work.N, work.K, None)
        return 1.0

    return run


def _full_test_histories(split: Split) -> list[Histories]:
    """Return the test users' histories of n items or more, each alone."""
    histories = split.test.histories
    return [histories.take(np.array([user])) for user in np.flatnonzero(histories.lengths >= work.N)]


def update(rollout: Rollout, n_items: int = work.N_ITEMS, model: ModelConfig = work.MODEL) -> Callable[[], float]:
    """Learn from a batch: one gradient step of policy and value model."""
    keep_memory()
    learner = Learner(work.policy(n_items, model), parse_goal("ndcg=1"), PpoConfig(passes=1, baseline="value"))

    def run() -> float:
        learner.update(rollout)
        return 1.0

    return run


def plain_update(rollout: Rollout) -> Callable[[], float]:
    """Learn from the same batch the plain way."""
    keep_memory()
    learner, flat = plain.Ppo(plain.network(work.N_ITEMS), work.N), flattened(rollout)

    def run() -> float:
        learner.update(flat)
        return 1.0

    return run


def flattened(rollout: Rollout) -> plain.Rollout:
    """Give each list its own copy of its history."""
    n_lists, k = rollout.slates.shape[1:]
    return plain.Rollout(
        [history.tolist() for history in rollout.histories for _ in range(n_lists)],
        torch.from_numpy(rollout.slates).long().view(-1, k),
        torch.from_numpy(rollout.log_probs).view(-1, k),
        torch.from_numpy(rollout.rewards["ndcg"]).view(-1, k),
    )


def stage_1(data: Path | None) -> Callable[[], float]:
    """Take a few steps of stage 1, teacher included; the unit is an example."""
    keep_memory()
    split = _with_few_validation_users(work.open_data(data))
    student, teacher = work.policy(split.catalogue.n_items), MarkovChain(split)
    seeds = itertools.count()

    def run() -> float:
        config = PretrainConfig(max_steps=STAGE_1_STEPS, seed=next(seeds))
        Pretraining(student, teacher, split, config).run()
        return float(STAGE_1_STEPS * config.batch_size)

    return run


def _with_few_validation_users(split: Split) -> Split:
    """The validation that ends a run of stage 1 is not what is measured."""
    return Split.of(split.interactions, SplitConfig(validation_users=1))


def plain_stage_1(data: Path | None) -> Callable[[], float]:
    """Take one step of stage 1 the plain way, with the same teacher."""
    keep_memory()
    split = work.open_data(data)
    teacher = MarkovChain(split)
    student = plain.Pretraining(plain.network(split.catalogue.n_items), work.N)
    seeds = itertools.count()

    def run() -> float:
        histories = work.cut_histories(split, PretrainConfig().batch_size, next(seeds))
        lists = torch.from_numpy(teacher.recommend(histories, work.K).items)
        student.update([history.tolist() for history in histories], lists)
        return float(len(histories))

    return run


def teacher_lists(data: Path | None) -> Callable[[], float]:
    """Let the Markov chain write lists for a batch as stage 1 asks for them; the unit is a list."""
    split = work.open_data(data)
    teacher = MarkovChain(split)
    batches = itertools.cycle([work.cut_histories(split, PretrainConfig().batch_size, seed) for seed in range(8)])

    def run() -> float:
        histories = next(batches)
        teacher.recommend(histories, work.K)
        return float(len(histories))

    return run


def evaluation(data: Path) -> Callable[[], float]:
    """Evaluate a policy on all test users with all metrics; the unit is a user."""
    keep_memory()
    split = Split.of(Interactions.load(data))
    recommender = NextK(work.policy(split.catalogue.n_items))

    def run() -> float:
        return float(len(evaluate(recommender, split.test, split, name="policy").user_ids))

    return run
