"""Rows about exactness: what is fast has to be right, beside a plain GPT-2 over whole sequences in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import plain, work
from benchmarks.figures import Figure, unmeasured
from benchmarks.measure import Child, ChildError, Way
from benchmarks.rows import Setting
from benchmarks.ways import flattened
from gptrec_rl.config import PpoConfig, Precision
from gptrec_rl.data import Histories
from gptrec_rl.decoding import NextK
from gptrec_rl.decoding.next_k import generate
from gptrec_rl.evaluation import evaluate
from gptrec_rl.goals import parse_goal
from gptrec_rl.learning.learner import Learner
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import has_bf16
from gptrec_rl.store.trained_models import load_policy

N_HISTORIES, N_LISTS = 16, 8
OUTLIER = 0.1


@dataclass(frozen=True)
class Tolerance:
    """What a figure of `comparing` may be at most."""

    name: str
    precision: Precision
    bound: float


TOLERANCES = {
    "largest error of log-probabilities": Tolerance("log_prob_max", "fp32", 1e-4),
    "largest error of ratios at equal weights": Tolerance("ratio_max", "fp32", 1e-4),
    "1 - cosine of the learner's gradient": Tolerance("distance", "fp32", 1e-4),
    "mean error of log-probabilities, bf16": Tolerance("log_prob_mean", "bf16", 0.02),
    "root mean square error of ratios at equal weights, bf16": Tolerance("ratio_rms", "bf16", 0.02),
    "share of ratios at equal weights with errors above 0.1, bf16": Tolerance("ratio_outliers", "bf16", 0.001),
    "1 - cosine of the learner's gradient, bf16": Tolerance("distance", "bf16", 0.01),
}
NDCG = "relative change of NDCG@10 on the test users by bf16"


def exactness(setting: Setting) -> Sequence[Figure]:
    """Log-probabilities, ratios and gradients."""
    figures = []
    way = Way(comparing, (setting.data, setting.student))
    try:
        with Child(way, setting.cores, warm_up=False) as child:
            found = child.round().results[0]
    except ChildError as error:
        return [unmeasured(name, "", "at most", each.bound, str(error)) for name, each in TOLERANCES.items()]
    has = has_bf16(torch.device("cpu"))
    for name, each in TOLERANCES.items():
        value = found[each.precision][each.name]
        is_binding = each.precision == "fp32" or has
        figures.append(Figure.of(name, [value], "", "at most", each.bound, found["policy"], is_binding))
    return figures


def ndcg(setting: Setting) -> Sequence[Figure]:
    """What bf16 does to the accuracy of the student's lists."""
    if setting.data is None or setting.student is None:
        return [unmeasured(NDCG, "%", "at most", 0.5, "it needs MovieLens-1M and a student trained on it")]
    if not has_bf16(torch.device("cpu")):
        return [unmeasured(NDCG, "%", "at most", 0.5, "the processor has no bf16 units")]
    try:
        with Child(Way(evaluating, (setting.data, setting.student)), setting.cores, warm_up=False) as child:
            exact, rounded = child.round().results[0]
    except ChildError as error:
        return [unmeasured(NDCG, "%", "at most", 0.5, str(error))]
    change = 100 * abs(rounded / exact - 1)
    notes = f"{exact:.4f} in fp32, {rounded:.4f} in bf16"
    return [Figure.of(NDCG, [change], "%", "at most", 0.5, notes)]


def evaluating(data: Path, student: Path) -> Callable[[], list[float]]:
    """Evaluate the student on all test users, in fp32 and in bf16."""
    split = work.open_data(data)
    policy = load_policy(student, split.catalogue)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def run() -> list[float]:
        tables = [evaluate(NextK(policy, each), split.test, split, name=each) for each in precisions]
        return [table.summary()["NDCG@10"] for table in tables]

    return run


def comparing(data: Path | None, student: Path | None) -> Callable[[], dict[str, Any]]:
    """Compare both precisions with the plain way, on random cuts."""
    split = work.open_data(data)
    policy, described = work.trained_policy(data, student, split)
    histories = work.cut_histories(split, N_HISTORIES)

    def run() -> dict[str, Any]:
        return {
            "policy": described,
            "fp32": errors(policy, histories, "fp32"),
            "bf16": errors(policy, histories, "bf16"),
        }

    return run


def errors(policy: GPTRec, histories: Histories, precision: Precision) -> dict[str, float]:
    """Sample lists, and compare what generator and learner make of them with the plain way.

    Returns:
        Errors of log-probabilities (`log_prob_mean`, `log_prob_max`), of the learner's ratios at equal weights, which
        should be 1 (`ratio_rms`, `ratio_max`, and `ratio_outliers`, the share that is off by more than `OUTLIER`), and
        `distance`: 1 - cosine of the policy's gradient to the plain one.
    """
    rollout = sampled(policy, histories, N_LISTS, precision)
    flat = flattened(rollout)
    with torch.no_grad():
        exact = plain.list_log_probs(policy.network, flat.histories, flat.lists, policy.history_length)
    log_prob_errors = (exact - flat.log_probs).abs()
    learner = Learner(policy, parse_goal("ndcg=1"), PpoConfig(passes=1, clip=OUTLIER, baseline="value"), precision)
    stats = learner.update(rollout)
    plain_learner = plain.Ppo(policy.network, policy.history_length)
    plain_learner.update(flat)
    return {
        "log_prob_mean": log_prob_errors.mean().item(),
        "log_prob_max": log_prob_errors.max().item(),
        "ratio_rms": math.sqrt(2 * abs(stats.approx_kl)),  # of a ratio near 1: (ratio - 1)^2 / 2
        "ratio_outliers": stats.clip_fraction,
        "ratio_max": stats.ratio_error,
        "distance": 1 - cosine(learner.policy.network, plain_learner.policy),
    }


def sampled(policy: GPTRec, histories: Histories, n_lists: int, precision: Precision) -> Rollout:
    """Return a rollout whose lists come from the policy, as a generator makes it, with random rewards."""
    k = policy.slate_length
    written = generate(policy, histories, k, n_lists, generator=torch.Generator().manual_seed(0), precision=precision)
    return replace(
        work.rollout(histories, n_lists, policy.n_items, k),
        slates=written.items.numpy().astype(np.int32),
        log_probs=written.log_probs.numpy(),
    )


def cosine(one: nn.Module, other: nn.Module) -> float:
    """Return the cosine of two networks' gradients."""
    mine, theirs = (
        torch.cat([weights.grad.double().flatten() for weights in each.parameters() if weights.grad is not None])
        for each in (one, other)
    )
    return float(functional.cosine_similarity(mine, theirs, dim=0))
