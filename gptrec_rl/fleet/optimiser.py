"""The Optimiser (section 3.3): draws batches from the cache, lets the Learner learn, publishes policies."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict

import numpy as np

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.fleet.audit import Auditor
from gptrec_rl.fleet.recorder import Recorder
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.goals import parse_goal
from gptrec_rl.learning import state
from gptrec_rl.learning.learner import Learner, UpdateStats
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.manifest import Entry, Origin
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.transport.cache import Ledger
from gptrec_rl.transport.messages import MessageError, RolloutBatch

COUNTERS_FILE = "optimiser.json"
ENOUGH_EFFECTIVE = 0.3
"""Effective sample size below which a batch says too little about the policy that learns from it."""

logger = logging.getLogger(__name__)


class Optimiser:
    """The one learner of a run, with its lease, its checkpoints and its reports.

    Args:
        student: where policy and value model start from, on the device that shall learn.
        split: the data, for its hashes.
        config: the run's configuration; `steps` or `max_minutes` says when it is done.
        transport: what the fleet shares.
        holder: names this process to others that want the lease.
        recorder: keeps what is drawn.
        companions: files that a learner state has beside the optimiser's own.
    """

    def __init__(
        self,
        student: GPTRec,
        split: Split,
        config: TuneConfig,
        transport: Transport,
        holder: str,
        recorder: Recorder | None = None,
        companions: Callable[[], Mapping[str, bytes]] = dict,
    ) -> None:
        if config.steps is None and config.max_minutes is None:
            raise InputError("a tuning run without steps or max_minutes never ends; set one of the two")
        self.learner = Learner(student, parse_goal(config.goal), config.ppo, config.precision, config.seed)
        self._split = split
        self._config = config
        self._transport = transport
        self._holder = holder
        self._recorder = recorder
        self._companions = companions
        self._auditor = Auditor(student, config, transport)
        self._rng = np.random.default_rng([config.seed, 0])
        self._elapsed_s = 0.0
        self._version = -1
        self._drawn_version: int | None = None
        self._reported = Ledger()
        self._published_step = -1
        self._n_skipped = 0
        self._has_warned = False
        self.token = 0
        """Fencing token, from `start` on."""
        self.has_finished = False
        """Whether all that was learned is on disk, and the lease given back."""
        self._saved_at = time.monotonic()
        self.reporter = Reporter(transport.metrics, "optimiser", 0, every_s=config.fleet.heartbeat_s)

    def start(self) -> tuple[Entry, Mapping[str, bytes]] | None:
        """Take the lease, go on from the newest learner state if there is one, and publish the policy.

        Returns:
            That learner state with its files, None for a new run.

        Raises:
            LeaseHeldError: another optimiser is at work on this run.
            InputError: the learner state is whole, and of another version or configuration.
        """
        store = self._transport.store
        token = self._transport.lease.acquire(self._holder, above=store.highest_token())
        if token != self.token:  # else this start has failed, maybe in the midst of its publication, and is tried again
            self._version = store.highest_version() if store.policies() else -1
            self.token = token
        self._transport.keys.persist()
        saved = store.read_latest_learner()
        if saved is not None:
            entry, files = saved
            with state.refusals(entry.folder):
                self.resume(files)
            logger.info("goes on from %s", entry.folder)
        elif store.learner_states():
            logger.warning("no learner state is whole: learning begins again with the student")
        if self._recorder is not None:
            self._recorder.start(self.token, self.learner.step)
        self._publish()
        return saved

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on from what `save` wrote."""
        self.learner.resume(files)
        counters = json.loads(files[COUNTERS_FILE])
        self._elapsed_s = float(counters["elapsed_s"])
        self._rng = state.numpy_rng_from_json(counters["rng"])

    def lease_kept(self) -> AbstractContextManager[None]:
        """Keep the lease while a step or a checkpoint takes longer than it lasts."""
        return self._transport.lease.kept(self._holder, self.token)

    @contextmanager
    def saved_at_the_latest(self) -> Iterator[None]:
        """Save what was learned when something that this process needs fails for good: Redis is away, and it ends."""
        try:
            yield
        except StorageError:
            if not self.has_finished:
                with suppress(InputError):  # storage fails: what was saved before stays
                    self.save()
            raise

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0..1 and beyond."""
        config = self._config
        by_steps = self.learner.step / config.steps if config.steps else 0.0
        by_time = self._elapsed_s / (60 * config.max_minutes) if config.max_minutes else 0.0
        return max(by_steps, by_time)

    @property
    def is_done(self) -> bool:
        """Whether the budget is used."""
        return self.fraction >= 1

    @property
    def has_just_published(self) -> bool:
        """Whether the newest policy is that of this very step."""
        return self.learner.step == self._published_step

    @property
    def is_save_due(self) -> bool:
        """Whether it is time for the next learner state."""
        return time.monotonic() - self._saved_at >= self._config.fleet.checkpoint_every_s

    def step(self) -> UpdateStats | None:
        """Learn from a batch of the cache; None when it has none to learn from.

        Raises:
            LeaseLostError: another optimiser took over; nothing more may be published.
            DivergedError: see `Learner.update`.
            DiskFullError: the policy of the last step has no room; no step is done until it has been published.
        """
        started = time.monotonic()
        self._transport.lease.renew(self._holder, self.token)
        self._publish_if_due()  # a full disk kept it from that
        batch = self._transport.cache.draw(self._rng, self._inspect)
        if batch is None:
            return None
        self._drawn_version = batch.policy_version
        stats = self.learn(batch)
        self._elapsed_s += time.monotonic() - started
        return stats

    def learn(self, batch: RolloutBatch) -> UpdateStats:
        """Take one step with this batch; publish the policy if it is its time.

        Raises:
            DivergedError: see `Learner.update`.
        """
        lag = {
            names.LAG_VERSIONS: float(self._version - batch.policy_version),
            names.LAG_STEPS: float(self.learner.step - batch.learner_step),
        }
        stats = self.learner.update(batch)
        if self._recorder is not None:
            self._recorder.drawn(self.learner.step, batch)
        self._observe(batch, stats, lag)
        self._publish_if_due()
        return stats

    def waited(self, seconds: float) -> None:
        """Note time in which there was no batch; it counts towards `max_minutes`."""
        self._elapsed_s += seconds
        cache, drawn = self._transport.cache, self._drawn_version
        is_used_up = cache.limits.max_reuse is not None and drawn is not None and not cache.is_stale(drawn)
        self.reporter.waited(seconds, names.WAIT_BATCHES, names.LIMIT_REUSE if is_used_up else None)

    def finish(self) -> None:
        """Publish the last policy, save the learner state and give the lease back."""
        if not self.has_just_published:
            self._publish()
        self.save()
        self.report()
        if self.is_done:
            self._transport.keys.expire()
        self._transport.lease.release(self._holder, self.token)
        self.has_finished = True

    def save(self) -> None:
        """Save the learner state to resume from.

        Raises:
            DivergedError: nobody could go on from it; those that were saved before stay as they are.
        """
        self.learner.require_finite()
        counters = {"elapsed_s": self._elapsed_s, "rng": state.numpy_rng_to_json(self._rng)}
        files = {**self.learner.to_files(), COUNTERS_FILE: json.dumps(counters).encode(), **self._companions()}
        if self._recorder is not None:
            self._recorder.sync()
        self._transport.store.save_learner(files, self._origin(self._version))
        self._saved_at = time.monotonic()

    def report(self) -> None:
        """Say what was done since the last report, and how the cache's ledger stands."""
        ledger, before = self._transport.cache.ledger(), self._reported
        self._reported = ledger
        n_stale, n_generated = ledger.stale - before.stale, ledger.generated - before.generated
        columns = {f"cache/{name}": float(n) for name, n in asdict(ledger).items()}
        extra = {
            names.PROGRESS: self.fraction,
            names.PPO_SKIPPED_STEPS: float(self._n_skipped),
            names.LIMIT_STALENESS: min(1.0, n_stale / max(n_generated, 1)),
            names.AUDIT_QUARANTINED: float(len(self._transport.cache.quarantined())),
        }
        self.reporter.report(self.token, self.learner.step, {**columns, **extra})

    def _publish_if_due(self) -> None:
        if self.learner.step % self._config.fleet.publish_every == 0 and not self.has_just_published:
            self._publish()

    def _publish(self) -> None:
        self.learner.require_finite()
        version = self._version + 1  # counts when it is published: a repeated try has the same number
        entry = self._transport.store.publish_policy(self.learner.policy.to_files(), self._origin(version))
        self._transport.cache.advance(self.token, version, self.learner.step)
        self._version = version
        self._published_step = self.learner.step
        if self._recorder is not None:
            self._recorder.published(entry)

    def _inspect(self, batch: RolloutBatch) -> None:
        """Refuse what can't be learned from; see `RecommendationCache.draw`."""
        if (batch.token, batch.policy_version) > (self.token, self._version):
            raise MessageError(
                f"generator {batch.generator_id} has a policy from the future: version {batch.policy_version} of token "
                f"{batch.token}; the newest is {self._version} of {self.token}"
            )
        error = self._auditor.examine(batch)
        if error is not None:
            self.reporter.observe({names.AUDIT_ERROR: error})

    def _origin(self, version: int) -> Origin:
        return Origin(
            token=self.token,
            version=version,
            step=self.learner.step,
            catalogue_hash=self._split.catalogue.hash,
            split_hash=self._split.hash,
            config=self._config.model_dump(mode="json"),
        )

    def _observe(self, batch: RolloutBatch, stats: UpdateStats, lag: dict[str, float]) -> None:
        self.reporter.count(names.SPEED_STEPS_PER_S, 1)
        self.reporter.count(names.SPEED_LISTS_PER_S, batch.slates.shape[0] * batch.slates.shape[1])
        rewards = {names.reward(name): float(values.sum(axis=-1).mean()) for name, values in batch.rewards.items()}
        self.reporter.observe({names.REWARD_MEAN: stats.reward, **rewards, **lag})
        self._n_skipped += stats.n_skipped
        if stats.n_skipped == self._config.ppo.passes:
            return
        self.reporter.observe(
            {
                names.LOSS_POLICY: stats.policy_loss,
                names.LOSS_VALUE: stats.value_loss,
                names.PPO_CLIP_FRACTION: stats.clip_fraction,
                names.PPO_EFFECTIVE_SAMPLE_SIZE: stats.effective_sample_size,
                names.PPO_APPROX_KL: stats.approx_kl,
                names.PPO_ENTROPY: stats.entropy,
                names.PPO_EXPLAINED_VARIANCE: stats.explained_variance,
                names.PPO_REFERENCE_KL: stats.reference_kl,
                names.PPO_GRADIENT_NORM: stats.gradient_norm,
                names.PPO_RATIO_ERROR: stats.ratio_error,
            }
        )
        if stats.effective_sample_size < ENOUGH_EFFECTIVE and not self._has_warned:
            self._has_warned = True
            self._warn_of_drift(stats.effective_sample_size)

    def _warn_of_drift(self, effective_sample_size: float) -> None:
        """Say once what to change."""
        fleet, ppo = self._config.fleet, self._config.ppo
        logger.warning(
            "effective sample size %.2f at step %d is under %.1f: the policy has moved far from those that wrote what "
            "it learns from; lower fleet.max_staleness (%s) or fleet.publish_every (%d), run fewer generators (%d), or "
            "try another ppo.correction (%s)",
            effective_sample_size,
            self.learner.step,
            ENOUGH_EFFECTIVE,
            "any" if fleet.max_staleness is None else fleet.max_staleness,
            fleet.publish_every,
            fleet.n_generators,
            ppo.correction,
        )
