"""The Validator (section 3.3): scores the newest policy on the validation users and marks the best one."""

from __future__ import annotations

import logging
import time

import numpy as np

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Cases, Split
from gptrec_rl.decoding.next_k import NextK
from gptrec_rl.evaluation import lists_of, measure
from gptrec_rl.fleet.rewards import rewards_of
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.goals import compute_rewards, parse_goal, weighted_sum
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.recommender import batches
from gptrec_rl.store.checkpoints import FIRST_VERSION
from gptrec_rl.store.manifest import CheckpointError, Entry
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import Reporter

logger = logging.getLogger(__name__)


class Validator:
    """Scores the newest policy at each call; those published in between are passed over, the run's first one never.

    The score is the goal's mean over the validation users' greedy lists; the best policy by it is the run's result.

    Args:
        split: has the validation users.
        config: the run's configuration.
        transport: what the fleet shares.
    """

    def __init__(self, split: Split, config: TuneConfig, transport: Transport) -> None:
        self._split = split
        self._config = config
        self._transport = transport
        self._goal = parse_goal(config.goal)
        self._rewards = rewards_of(config, split)
        self._scored: Entry | None = None
        self._knows_the_start = False
        self.reporter = Reporter(transport.metrics, "validator", 0, every_s=config.fleet.heartbeat_s)

    def step(self) -> float | None:
        """Score the newest policy; return the processor seconds that took, None when it was scored before.

        Before any other the run's first policy is scored, which is the student: what is better than it is known by
        that. The store keeps it until then.
        """
        store = self._transport.store
        newest = store.latest_policy()
        if newest is None or newest == self._scored:
            return None
        started = time.process_time()
        if not self._knows_the_start and store.best() is None:
            first = next((entry for entry in store.policies() if entry.version == FIRST_VERSION), newest)
            if first != newest:
                self._validate(first)
        self._knows_the_start = True
        is_scored = self._validate(newest)
        self._scored = newest
        return time.process_time() - started if is_scored else None

    def _validate(self, entry: Entry) -> bool:
        """Score a policy and report it; False for one that is damaged."""
        store, started = self._transport.store, time.process_time()
        with store.hold(entry, "validator"):
            try:
                policy = GPTRec.from_files(store.read(entry))
            except CheckpointError as error:
                logger.warning("%s; the next policy is waited for", error)
                return False
            values = self._score(policy)
            values[names.VAL_IS_BEST] = float(store.mark_best(entry, values[names.VAL_REWARD]))
        values |= {names.VAL_VERSION: entry.version, names.VAL_SECONDS: time.process_time() - started}
        self.reporter.report(entry.token, entry.step, values)
        return True

    def report(self) -> None:
        """Say that this process is alive."""
        entry = self._scored
        self.reporter.report(entry.token if entry else 0, entry.step if entry else 0)

    def _rewards_of(self, items: np.ndarray, cases: Cases) -> np.ndarray:
        """Return the goal's total of each list, [B]."""
        rewards = compute_rewards(
            self._rewards, items[:, None], cases.ground_truth, cases.histories, self._split.catalogue
        )
        return weighted_sum(rewards, self._goal).sum(axis=(1, 2))

    def _score(self, policy: GPTRec) -> dict[str, float]:
        cases = self._split.validation
        k = policy.slate_length
        writer = NextK(policy, self._config.precision)
        items = lists_of(writer, cases.histories, self._split, "policy", k)
        parts = batches(len(cases.users), self._split.catalogue.n_items)
        totals = np.concatenate([self._rewards_of(items[rows], cases.take(rows)) for rows in parts])
        table = measure(items, cases, self._split, name="policy")
        errors = table.standard_errors()
        values = {f"val/{name.lower()}": value for name, value in table.summary().items() if np.isfinite(value)}
        values |= {f"val/{name.lower()}/error": errors[name] for name in table.summary() if np.isfinite(errors[name])}
        return {**values, names.VAL_REWARD: float(totals.mean())}
