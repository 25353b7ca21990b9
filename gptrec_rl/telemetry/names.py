"""The names of all metrics that processes report, in one place."""

from __future__ import annotations

REWARD_MEAN = "reward/mean"
REWARD_NDCG = "reward/ndcg"
REWARD_ILD = "reward/ild"

PPO_APPROX_KL = "ppo/approx_kl"
PPO_CLIP_FRACTION = "ppo/clip_fraction"
PPO_EFFECTIVE_SAMPLE_SIZE = "ppo/effective_sample_size"
PPO_ENTROPY = "ppo/entropy"
PPO_EXPLAINED_VARIANCE = "ppo/explained_variance"
PPO_GRADIENT_NORM = "ppo/gradient_norm"
PPO_RATIO_ERROR = "ppo/ratio_error"
PPO_REFERENCE_KL = "ppo/reference_kl"
PPO_SKIPPED_STEPS = "ppo/skipped_steps"

LOSS_POLICY = "loss/policy"
LOSS_VALUE = "loss/value"

LAG_VERSIONS = "lag/versions"
LAG_STEPS = "lag/steps"

SPEED_LISTS_PER_S = "speed/lists_per_s"
SPEED_STEPS_PER_S = "speed/steps_per_s"
PROGRESS = "run/progress"

WAIT_SHARE = "wait/share"
WAIT_POLICY = "wait/policy"
WAIT_ROOM = "wait/room"
WAIT_BATCHES = "wait/batches"
WAIT_TURN = "wait/turn"
WAIT_RESUME = "wait/resume"
WAIT_DISK = "wait/disk"

LIMIT_STALENESS = "limit/staleness"
LIMIT_REUSE = "limit/reuse"
LIMIT_PACING = "limit/pacing"

PROCESS_CORES = "process/cores"
PROCESS_MEMORY = "process/memory_mb"

FLEET_GENERATORS = "fleet/generators"
FLEET_GENERATORS_WANTED = "fleet/generators_wanted"
FLEET_CORES = "fleet/cores"
FLEET_RESTARTS = "fleet/restarts"

CACHE_GENERATED = "cache/generated"
CACHE_WAITING = "cache/waiting"
CACHE_DRAWN = "cache/drawn"
CACHE_EVICTED = "cache/evicted"
CACHE_STALE = "cache/stale"
CACHE_REJECTED = "cache/rejected"
CACHE_REPEATED = "cache/repeated"

AUDIT_ERROR = "audit/error"
AUDIT_QUARANTINED = "audit/quarantined"

VAL_VERSION = "val/version"
VAL_SECONDS = "val/seconds"
VAL_IS_BEST = "val/is_best"
VAL_REWARD = "val/reward"


def reward(metric: str) -> str:
    """Return the name of the mean reward by one metric, the user's own ones included."""
    return f"reward/{metric}"


def validation(metric: str, k: int) -> str:
    """Return the name of one metric of the validator for lists of K items."""
    return f"val/{metric}@{k}"
