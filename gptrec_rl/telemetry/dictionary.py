"""The metric dictionary: what each name in `names` means, its unit, its healthy range, and what to do outside it.

The exporter takes names and kinds from it, `gptrec-rl doctor` ranges and remedies; `docs/metrics.md` is written by
`python -m gptrec_rl.telemetry.dictionary`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.meaning import Meaning, Range

DICTIONARY: Mapping[str, Meaning] = {
    names.REWARD_MEAN: Meaning(
        "reward",
        "gptrec_reward_mean",
        "Goal (weighted sum of rewards) of a list, mean over the batches drawn; in-sample, so it reads high.",
        "It should rise over the run. If it falls, lower `ppo.policy_learning_rate`; if it stands still, raise it.",
        "rises",
    ),
    "reward/<metric>": Meaning(
        "of the metric",
        "gptrec_reward",
        "One reward of a list before weighting: of the batches drawn (optimiser), of those made (generator).",
        "One that falls while the goal rises is the price paid; change the weights in `--goal` if it is too high.",
        "as the goal weighs it",
    ),
    names.PPO_APPROX_KL: Meaning(
        "nats an item",
        "gptrec_ppo_approx_kl_nats",
        "KL(behaviour || policy), estimated (k3): how far the policy has moved from the one that made the lists.",
        "Lower `ppo.policy_learning_rate` or `ppo.passes`, or bring data up to date with a smaller "
        "`fleet.publish_every` or `fleet.max_staleness`.",
        Range(0, 0.1),
    ),
    names.PPO_CLIP_FRACTION: Meaning(
        "share",
        "gptrec_ppo_clip_fraction_ratio",
        "Share of items whose ratio is past the correction's bounds, 1 - clip to 1 + clip or the truncation.",
        "Lower `ppo.policy_learning_rate` or `ppo.passes`, or publish more often (`fleet.publish_every`).",
        Range(0, 0.5),
    ),
    names.PPO_EFFECTIVE_SAMPLE_SIZE: Meaning(
        "share",
        "gptrec_ppo_effective_sample_size_ratio",
        "(sum w)^2 / (N sum w^2) of the ratios w of a batch's N items at its first pass: how much of the batch counts.",
        "A few items outweigh all others: lower `fleet.max_staleness` or `fleet.publish_every`, run fewer generators, "
        "or try another `ppo.correction`.",
        Range(0.3, 1),
    ),
    names.PPO_ENTROPY: Meaning(
        "nats an item",
        "gptrec_ppo_entropy_nats",
        "Entropy of the choice of an item; with few thousand items a student starts at about 3.",
        "Below, hardly anything is tried any more: set `ppo.entropy_bonus` or `ppo.kl_weight`, or lower "
        "`ppo.policy_learning_rate`, and go on from an earlier policy.",
        Range(low=0.5),
    ),
    names.PPO_EXPLAINED_VARIANCE: Meaning(
        "share",
        "gptrec_ppo_explained_variance_ratio",
        "Share of its targets' variance that the value model explains; 0 with the group baseline, negative at first.",
        "The value model is worse than a constant: raise `ppo.value_learning_rate`, or use `ppo.baseline=group`.",
        Range(0, 1),
    ),
    names.PPO_GRADIENT_NORM: Meaning(
        "norm",
        "gptrec_ppo_gradient_norm",
        "Norm of the policy's gradient before clipping.",
        "Set `ppo.gradient_clip`, keep `ppo.normalise_advantages`, or lower `ppo.policy_learning_rate`.",
        Range(0, 10),
    ),
    names.PPO_RATIO_ERROR: Meaning(
        "ratio - 1",
        "gptrec_ppo_ratio_error",
        "Largest distance of a ratio from 1 at a batch's first pass; rounding alone where the lag is 0.",
        "Single items have become much likelier than when they were drawn: bring data up to date with a smaller "
        "`fleet.publish_every` or `fleet.max_staleness`, or lower `ppo.policy_learning_rate`.",
        Range(0, 10),
    ),
    names.PPO_REFERENCE_KL: Meaning(
        "nats an item",
        "gptrec_ppo_reference_kl_nats",
        "KL(policy || student): how far tuning has gone from where it began; 0 when `ppo.kl_weight` is.",
        "Raise `ppo.kl_weight`, or let `ppo.kl_target` steer it, if lists lose what the student knew.",
        Range(0, 1),
    ),
    names.PPO_SKIPPED_STEPS: Meaning(
        "passes",
        "gptrec_ppo_skipped_passes_total",
        "Passes whose loss or gradient was not finite, which changed nothing; since the optimiser's start.",
        "Lower `ppo.policy_learning_rate`, set `ppo.gradient_clip`, or compute with `precision=fp32`; look for "
        "infinite values in rewards of your own.",
        Range(0, 0),
        kind="counter",
    ),
    names.LOSS_POLICY: Meaning(
        "loss",
        "gptrec_loss_policy",
        "The policy's loss (equation 12); near 0, and no measure of progress.",
        "Far from 0, look at `ppo/clip_fraction` and `ppo/approx_kl`.",
        "near 0",
    ),
    names.LOSS_VALUE: Meaning(
        "reward squared",
        "gptrec_loss_value",
        "The value model's loss (equation 8); 0 with the group baseline.",
        "It should fall in the first hundred steps; if it rises later, lower `ppo.value_learning_rate`.",
        "falls, then stays",
    ),
    names.LAG_VERSIONS: Meaning(
        "versions",
        "gptrec_lag_versions",
        "Published versions between the policy that made a batch and the newest one, at the draw.",
        "Near `fleet.max_staleness`, batches are about to be thrown away: fewer generators, a smaller "
        "`fleet.cache_batches`, or a larger `fleet.publish_every`.",
        "well below `fleet.max_staleness`",
    ),
    names.LAG_STEPS: Meaning(
        "steps",
        "gptrec_lag_steps",
        "Learner steps since the policy that made a batch, at the draw.",
        "A smaller `fleet.publish_every` or `fleet.cache_batches` lowers it.",
        "a few times `fleet.publish_every` at most",
    ),
    names.SPEED_LISTS_PER_S: Meaning(
        "lists/s",
        "gptrec_speed_lists_per_second",
        "Lists made (generator) or learned from (optimiser).",
        "0 for long: see `wait/share` of this process, then its log.",
        "steady",
        kind="rate",
    ),
    names.SPEED_STEPS_PER_S: Meaning(
        "steps/s",
        "gptrec_speed_steps_per_second",
        "Learner steps.",
        "0 for long: see `wait/share` of the optimiser, then its log.",
        "steady",
        kind="rate",
    ),
    names.WAIT_SHARE: Meaning(
        "share",
        "gptrec_wait_ratio",
        "Share of its time that a process waited, for whatever reason.",
        "The optimiser waits: more generators. Generators wait: fewer will do, or speed up the optimiser (a GPU, "
        "more cores). Both wait: `gptrec-rl doctor`.",
        "optimiser under 0.5, generators under 0.9",
    ),
    "wait/<what>": Meaning(
        "share",
        "gptrec_wait_for_ratio",
        "Share of its time that a process waited for this: `batches` (optimiser), `room` in the cache (generator), a "
        "`policy` (generator, validator), its `turn` on shared cores (validator), `resume` (anybody, while the run is "
        "paused), room on the `disk` for a checkpoint (optimiser, validator).",
        "See `wait/share`. `policy` at a generator: the optimiser has published none, or the generator can't read the "
        "newest. `resume`: `gptrec-rl fleet resume`. `disk`: free some space.",
        "as `wait/share`",
        kind="rate",
    ),
    names.LIMIT_STALENESS: Meaning(
        "share",
        "gptrec_limit_staleness_ratio",
        "What `fleet.max_staleness` refuses: of the batches since the last report, the share outdated undrawn "
        "(optimiser); the share of time in which the newest policy at hand was too old to write with (generator).",
        "Batches are made in vain: fewer generators, a larger `fleet.publish_every` or `fleet.max_staleness`. At a "
        "generator: it can't read newer policies; see its log.",
        "under 0.1",
        kind="rate",
    ),
    names.LIMIT_REUSE: Meaning(
        "share",
        "gptrec_limit_reuse_ratio",
        "What `fleet.max_reuse` refuses: the share of its time in which the optimiser had nothing but batches drawn as "
        "often as they may be.",
        "More generators, or a larger `fleet.max_reuse`.",
        "under 0.5",
        kind="rate",
    ),
    names.LIMIT_PACING: Meaning(
        "share",
        "gptrec_limit_pacing_ratio",
        "What pacing refuses: the share of its time in which a generator waited because `fleet.cache_batches` batches "
        "wait for the optimiser already.",
        "Generators have time to spare: fewer will do, or speed up the optimiser.",
        "under 0.9",
        kind="rate",
    ),
    names.PROCESS_CORES: Meaning(
        "cores",
        "gptrec_process_cores",
        "Processor time a second, since the last report: 1 is a core at full load.",
        "Near 0 without waiting: the machine is overloaded, or the process was stopped.",
        "up to the threads that the process has",
    ),
    names.PROCESS_MEMORY: Meaning(
        "MB",
        "gptrec_process_memory_megabytes",
        "Memory that the process holds (resident set).",
        "If it grows all the time, restart the process before the machine runs out: it goes on where it was.",
        "steady after the first minutes",
    ),
    names.FLEET_GENERATORS: Meaning(
        "processes",
        "gptrec_fleet_generators",
        "Generators that the Supervisor has running.",
        "Fewer than wanted for long: they fail at their start; see their logs.",
        "as many as wanted",
    ),
    names.FLEET_GENERATORS_WANTED: Meaning(
        "processes",
        "gptrec_fleet_generators_wanted",
        "Generators that there should be, by configuration or `gptrec-rl fleet scale`.",
        "`gptrec-rl fleet scale generator=N` changes it.",
        "as you wish",
    ),
    names.FLEET_CORES: Meaning(
        "cores",
        "gptrec_fleet_cores",
        "Cores that the Supervisor shares out.",
        "Fewer than the machine has: a container or `taskset` keeps the rest.",
        "all of the machine's",
    ),
    names.FLEET_RESTARTS: Meaning(
        "starts",
        "gptrec_fleet_restarts_total",
        "How often the Supervisor started a process again that had failed, or hung.",
        "Single ones are what the fleet is made for; if it keeps growing, see the logs of the run.",
        "0, or a few",
        kind="counter",
    ),
    names.PROGRESS: Meaning(
        "share",
        "gptrec_run_progress_ratio",
        "Used share of the run's budget (`steps` or `max_minutes`), a little beyond 1 at the end.",
        "It grows while the optimiser is alive.",
        "grows to 1",
    ),
    names.CACHE_GENERATED: Meaning(
        "batches",
        "gptrec_cache_generated_batches_total",
        "Batches that entered the cache: waiting + drawn + evicted + stale + rejected, always.",
        "If the sum is another, Redis has lost data: see its log and persistence; the run itself goes on.",
        "grows; the sum holds",
        kind="counter",
    ),
    names.CACHE_WAITING: Meaning(
        "batches",
        "gptrec_cache_waiting_batches",
        "Batches never drawn that still may be; at `fleet.cache_batches` generators pause.",
        "0 for long: generators are too slow or away. Always full: there are more than the optimiser needs.",
        "above 0",
    ),
    names.CACHE_DRAWN: Meaning(
        "batches",
        "gptrec_cache_drawn_batches_total",
        "Batches learned from, each counted once however often it is drawn.",
        "It should make up nearly all of `cache/generated`.",
        "over 9 in 10 of `cache/generated`",
        kind="counter",
    ),
    names.CACHE_EVICTED: Meaning(
        "batches",
        "gptrec_cache_evicted_batches_total",
        "Batches pushed out by newer ones without being drawn.",
        "More than a few in a hundred: fewer generators, or a larger `fleet.cache_batches`.",
        "under 1 in 10 of `cache/generated`",
        kind="counter",
    ),
    names.CACHE_STALE: Meaning(
        "batches",
        "gptrec_cache_stale_batches_total",
        "Batches outdated by newer policies without being drawn.",
        "More than a few in a hundred: fewer generators, a larger `fleet.publish_every` or `fleet.max_staleness`.",
        "under 1 in 10 of `cache/generated`",
        kind="counter",
    ),
    names.CACHE_REJECTED: Meaning(
        "batches",
        "gptrec_cache_rejected_batches_total",
        "Batches unreadable, of another run or data, or from learner steps that were lost with an optimiser.",
        "A few after an optimiser was killed are normal. Else a generator has other data or another version of this "
        "program: the optimiser's log says which.",
        "under 1 in 10 of `cache/generated`",
        kind="counter",
    ),
    names.CACHE_REPEATED: Meaning(
        "batches",
        "gptrec_cache_repeated_batches_total",
        "Sends of a batch that had already come, dropped; no part of the sum.",
        "A few after Redis was away are normal; many say that the network loses replies.",
        "a few",
        kind="counter",
    ),
    names.AUDIT_ERROR: Meaning(
        "nats an item",
        "gptrec_audit_error_nats",
        "Mean difference between log-probabilities of generators and those recomputed with the very version, sampled.",
        "Above 0.05 the generator is put in quarantine. Rounding to bf16 makes a few thousandths.",
        Range(0, 0.05),
    ),
    names.AUDIT_QUARANTINED: Meaning(
        "generators",
        "gptrec_audit_quarantined_generators_total",
        "Generators of the run, gone ones among them, whose lists or log-probabilities were wrong; all their batches "
        "are rejected.",
        "The optimiser's log says which, and why. End the process, look at its machine and code, start it again: it is "
        "another generator then, and the count stays.",
        Range(0, 0),
        kind="counter",
    ),
    names.VAL_VERSION: Meaning(
        "version",
        "gptrec_validation_version",
        "Version of the policy that was scored; its step is the record's.",
        "If it falls ever further behind the newest, raise `fleet.validator_share`.",
        "close behind the newest",
    ),
    names.VAL_SECONDS: Meaning(
        "seconds",
        "gptrec_validation_seconds",
        "Processor time that scoring took.",
        "Fewer validation users (`split.validation_users`) make it shorter.",
        "steady",
    ),
    names.VAL_IS_BEST: Meaning(
        "0 or 1",
        "gptrec_validation_is_best",
        "Whether this policy has become the best one.",
        "None for most of a run: it has learned all it will; stop it, or change the goal.",
        "1 now and then",
    ),
    names.VAL_REWARD: Meaning(
        "reward",
        "gptrec_validation_reward",
        "Goal of the validation users' lists, the score that chooses the best policy.",
        "It should rise. If it falls while `reward/mean` rises, the run overfits: the best policy is kept; stop.",
        "rises, and stays above the student's",
    ),
    "val/<metric>@<k>": Meaning(
        "of the metric",
        "gptrec_validation",
        "One metric of the validation users' greedy lists of K items; README, Metrics, defines it.",
        "See `val/reward`.",
        "as the goal weighs it",
    ),
    "val/<metric>@<k>/error": Meaning(
        "of the metric",
        "gptrec_validation_error",
        "Standard error of that metric over the users.",
        "Differences within two of it are noise; more `split.validation_users` lower it.",
        "small beside the differences that matter",
    ),
}

_PATTERNS = {
    re.compile(re.sub("<(metric|what)>", r"(?P<\1>[^@]+)", name).replace("<k>", r"(?P<k>\d+)")): meaning
    for name, meaning in DICTIONARY.items()
    if "<" in name
}


@dataclass(frozen=True)
class Described:
    """A name as the dictionary knows it.

    Attributes:
        meaning: of the name.
        labels: what fills the places in angle brackets.
    """

    meaning: Meaning
    labels: Mapping[str, str]


def describe(name: str) -> Described | None:
    """Look a name up; None for one that the dictionary lacks.

    Example:
        >>> describe("val/ndcg@10/error").labels
        {'metric': 'ndcg', 'k': '10'}
    """
    if name in DICTIONARY:
        return Described(DICTIONARY[name], {})
    for pattern, meaning in _PATTERNS.items():
        if found := pattern.fullmatch(name):
            return Described(meaning, found.groupdict())
    return None


def table() -> str:
    """Return the dictionary in Markdown, one table for each first part of the names."""
    groups: dict[str, list[str]] = {}
    for name, meaning in DICTIONARY.items():
        cells = [f"`{name}`<br>`{meaning.exported}`", meaning.unit, meaning.text, str(meaning.healthy), meaning.remedy]
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        groups.setdefault(name.partition("/")[0], []).append(f"| {row} |")
    head = "| name, and in Prometheus | unit | meaning | healthy | when it isn't |\n|---|---|---|---|---|"
    return "\n\n".join("\n".join([f"### {group}", "", head, *rows]) for group, rows in groups.items()) + "\n"


if __name__ == "__main__":
    print(table(), end="")
