"""A tuning run at a glance, as text: rewards, lag, speeds, who waits for whom, the cache, the validator's history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from gptrec_rl.metrics import metric
from gptrec_rl.reporting.documents import duration
from gptrec_rl.reporting.grids import Grid
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.history import RunHistory, ScoredPolicy
from gptrec_rl.telemetry.holdups import (
    NOTABLE,
    active,
    biting_limits,
    recent_means,
    standstill,
    waiting_share,
    waits_in_words,
)

SHOWN_METRICS = ("NDCG", "ILD", "nPCOUNT")
BARS = "▁▂▃▄▅▆▇█"
TREND_WIDTH = 32


def snapshot(history: RunHistory, title: str, now: float, n_validations: int | None = None) -> str:
    """Describe a run.

    Args:
        history: of the run.
        title: what it is called.
        now: in seconds since the epoch.
        n_validations: how many of the last validations to show, None for all; the best one is always named.
    """
    if history.heard_at is None:
        return f"{title}\n\nnothing recorded yet"
    parts = ["\n".join([title, _progress(history, now)])]
    values = recent_means(history, "optimiser")
    if values:
        facts = {
            "reward": _rewards(values),
            "": _trend(history),
            "PPO": _ppo(values),
            "lag": lag_in_words(values),
            "speed": _speed(history, values),
            "waiting": f"{_waits(history)}: {bottleneck(history)}",
            "limits": biting_limits(history),
            "cache": ledger_in_words(history.recent["optimiser", 0][-1].values),
        }
        parts.append("\n".join(f"{name:<9}{fact}" for name, fact in facts.items() if fact))
    if (found := standstill(history)) is not None:
        parts.append(str(found))
    if history.validations:
        parts.append(_validations(history, n_validations))
    return "\n\n".join(parts)


def bottleneck(history: RunHistory) -> str:
    """Say in words who holds up whom."""
    optimiser, generators = (waiting_share(history, role) for role in ("optimiser", "generator"))
    if max(optimiser, generators) < NOTABLE:
        return "nobody is held up"
    return "the generators are the bottleneck" if optimiser > generators else "the optimiser is the bottleneck"


def _progress(history: RunHistory, now: float) -> str:
    share = min(history.progress, 1.0)
    heard = (
        "finished" if history.is_finished else f"last heard of {duration(max(now - (history.heard_at or now), 0))} ago"
    )
    return f"step {history.step:,}, {share:.0%} of the budget, {duration(history.seconds)}, {heard}"


def _rewards(values: Mapping[str, float]) -> str:
    parts = {name.removeprefix("reward/"): value for name, value in values.items() if name.startswith("reward/")}
    mean = parts.pop("mean", None)
    shown = ({} if mean is None else {"mean": mean}) | parts
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())


def _trend(history: RunHistory) -> str:
    """Draw the mean reward over the whole run, low to high."""
    rewards = [point.reward for point in history.rewards]
    if len(rewards) < 2:
        return ""
    width = min(TREND_WIDTH, len(rewards))
    edges = [len(rewards) * place // width for place in range(width + 1)]
    means = [sum(rewards[i:j]) / (j - i) for i, j in pairwise(edges)]
    low, span = min(means), max(max(means) - min(means), 1e-12)
    bars = "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)
    return f"{bars}  {min(means):.4f} to {max(means):.4f}"


def _ppo(values: Mapping[str, float]) -> str:
    shown = {
        "KL": names.PPO_APPROX_KL,
        "clipped": names.PPO_CLIP_FRACTION,
        "effective sample": names.PPO_EFFECTIVE_SAMPLE_SIZE,
        "entropy": names.PPO_ENTROPY,
        "explained variance": names.PPO_EXPLAINED_VARIANCE,
        "skipped steps": names.PPO_SKIPPED_STEPS,
    }
    return "  ".join(f"{word} {values[name]:.4g}" for word, name in shown.items() if name in values)


def lag_in_words(values: Mapping[str, float]) -> str:
    """Write how old batches are when they are drawn; "" for values without it."""
    if names.LAG_STEPS not in values:
        return ""
    return f"{values[names.LAG_VERSIONS]:.1f} versions, {values[names.LAG_STEPS]:.0f} steps"


def _speed(history: RunHistory, optimiser: Mapping[str, float]) -> str:
    n_generators = len(active(history, "generator"))
    each = recent_means(history, "generator").get(names.SPEED_LISTS_PER_S, 0.0)
    steps, lists = (optimiser.get(name, 0.0) for name in (names.SPEED_STEPS_PER_S, names.SPEED_LISTS_PER_S))
    generators = f"{n_generators} generator{'' if n_generators == 1 else 's'}"
    return f"optimiser {steps:.2f} steps/s ({lists:.0f} lists/s), {generators} {n_generators * each:.0f} lists/s"


def _waits(history: RunHistory) -> str:
    shares = []
    for role in ("optimiser", "generator", "validator"):
        means = recent_means(history, role)
        if names.WAIT_SHARE in means:
            reasons = waits_in_words(means)
            shares.append(f"{role} {means[names.WAIT_SHARE]:.0%}{f' ({reasons})' if reasons else ''}")
    return ", ".join(shares)


def ledger_in_words(values: Mapping[str, float]) -> str:
    """Write the ledger as the sum that it is; "" for values without one."""
    if names.CACHE_GENERATED not in values:
        return ""
    columns = (names.CACHE_WAITING, names.CACHE_DRAWN, names.CACHE_EVICTED, names.CACHE_STALE, names.CACHE_REJECTED)
    total = " + ".join(f"{values[name]:,.0f} {name.removeprefix('cache/')}" for name in columns)
    return f"{values[names.CACHE_GENERATED]:,.0f} batches = {total}; {values[names.CACHE_REPEATED]:,.0f} repeated"


def _validations(history: RunHistory, n_shown: int | None) -> str:
    shown = history.validations if n_shown is None else history.validations[-n_shown:]
    columns = [name for name in shown[-1].values if name.partition("@")[0] in SHOWN_METRICS]
    header = ["version", "step", "minutes", "reward", *(f"{name} {metric(name).arrow}" for name in columns), ""]
    grid = Grid(header, [_validation(policy, columns, policy == history.best) for policy in shown], n_left=0)
    n_hidden = len(history.validations) - len(shown)
    return "\n".join([grid.text(), *_below_the_table(history, n_hidden, history.best in shown)])


def _below_the_table(history: RunHistory, n_hidden: int, shows_best: bool) -> Iterator[str]:
    if n_hidden:
        yield f"and {n_hidden:,} before"
    if history.best is not None and not shows_best:
        yield f"best: version {history.best.version:,}, step {history.best.step:,}, reward {history.best.reward:.4f}"


def _validation(policy: ScoredPolicy, columns: Sequence[str], is_best: bool) -> list[str]:
    numbers = [f"{policy.version:,}", f"{policy.step:,}", f"{policy.minutes:.1f}", f"{policy.reward:.4f}"]
    metrics = []
    for name in columns:
        error = f" ± {policy.errors[name]:.4f}" if name in policy.errors else ""
        metrics.append(f"{policy.values[name]:.4f}{error}" if name in policy.values else "-")
    return [*numbers, *metrics, "best" if is_best else ""]
