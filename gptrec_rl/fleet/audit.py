"""The behaviour audit: does a generator sample from the policy, and by the rules, that it says it does?

The Optimiser recomputes some of the log-probabilities that it is sent. PPO's ratios rest on them, so a generator whose
numbers are wrong (another temperature, no mask, old weights, a faulty machine) would spoil the policy unnoticed.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from gptrec_rl.config import TuneConfig
from gptrec_rl.decoding.masking import chosen_log_probs
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.goals import parse_goal
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.recommender import candidates
from gptrec_rl.store.manifest import CheckpointError
from gptrec_rl.transport.messages import MessageError, RolloutBatch

AUDIT_EVERY = 16
"""The first batch of each generator is audited, and then one of so many."""
AUDITED_HISTORIES = 4
"""All lists of so many of a batch's histories are recomputed."""
TOLERANCE = 0.05
"""Largest mean difference in nats; of a trained student's, bf16 makes 0.005 at most and a temperature 5 % off 0.06."""
KEPT_VERSIONS = 2

logger = logging.getLogger(__name__)


class Auditor:
    """Looks at each batch before it may be drawn, and puts generators whose batches are wrong into quarantine.

    The quarantine is of the generator's id: it outlasts the Optimiser, and ends with the generator's process, as the
    next one gets a new id and is audited from its first batch on.

    Args:
        student: a policy of the run's shape, on the device that recomputes.
        config: the run's configuration.
        transport: has the policies, and the cache that keeps the quarantine.
    """

    def __init__(self, student: GPTRec, config: TuneConfig, transport: Transport) -> None:
        self._n_items = student.n_items
        self._slate_length = student.slate_length
        self._device = student.device
        self._most = (config.fleet.n_histories, config.fleet.n_lists)
        self._fewest_lists = 2 if config.ppo.baseline == "group" else 1
        self._rewards = parse_goal(config.goal).weights.keys()
        self._store = transport.store
        self._cache = transport.cache
        self._policies: dict[tuple[int, int], GPTRec] = {}
        self._audited: set[int] = set()
        self._reasons: dict[int, str] = {}

    def examine(self, batch: RolloutBatch) -> float | None:
        """Check a batch, recompute a sample of it now and then.

        Returns:
            The mean absolute difference of its log-probabilities in nats; None when none were recomputed.

        Raises:
            MessageError: the batch is wrong, and its generator is in quarantine from now on; or it is larger than
                the configuration's, as those from before a resume with smaller ones are.
        """
        generator = batch.generator_id
        if generator in self._reasons:
            raise MessageError(self._reasons[generator])
        n_histories, n_lists, _ = batch.slates.shape
        if n_histories > self._most[0] or n_lists > self._most[1]:
            raise MessageError(
                f"generator {generator} made {n_histories} x {n_lists} lists a batch, and the configuration has at "
                f"most {self._most[0]} x {self._most[1]}; if it goes on, start it again, on the run folder as it is"
            )
        if problem := self._impossible(batch):
            raise self._quarantine(generator, problem)
        if generator in self._audited and batch.sequence_number % AUDIT_EVERY:
            return None
        error = self._error(batch)
        if error is None:
            return None
        if not error <= TOLERANCE:
            raise self._quarantine(
                generator,
                f"its log-probabilities are {error:.2g} nats on average from those of policy version "
                f"{batch.policy_version}, where rounding makes less than {TOLERANCE}",
            )
        self._audited.add(generator)
        return error

    def _quarantine(self, generator: int, problem: str) -> MessageError:
        self._cache.quarantine(generator)
        self._reasons[generator] = (
            f"generator {generator} is in quarantine, and its batches are rejected: {problem}; end the process that "
            f"is generator {generator} by its log, see that its machine is sound and runs the same code on the same "
            "run folder, and start it again, which gives it a new number"
        )
        return MessageError(self._reasons[generator])

    def _impossible(self, batch: RolloutBatch) -> str | None:
        """Say what in a batch no generator of this run can have made."""
        histories, slates = batch.histories, batch.slates
        for name, items in (("history", histories.values), ("ground truth", batch.ground_truth), ("list", slates)):
            if items.size and items.max() > self._n_items:
                return f"a {name} has item {items.max()}, and the catalogue {self._n_items}"
        if slates.shape[2] > self._slate_length:
            return f"its lists have {slates.shape[2]} items, and the policy's {self._slate_length}"
        if slates.shape[1] < self._fewest_lists:
            return "it has 1 list a history, and ppo.baseline 'group' compares several"
        ordered = np.sort(slates, axis=2)
        if (ordered[..., 1:] == ordered[..., :-1]).any():
            return "a list has an item twice"
        rows = np.arange(len(slates))[:, None, None]
        if histories.contains(self._n_items)[rows, slates - 1].any():
            return "a list has an item of its history"
        missing = self._rewards - batch.rewards.keys()
        return f"it has no reward {min(missing)!r}" if missing else None

    @torch.inference_mode()
    def _error(self, batch: RolloutBatch) -> float | None:
        policy = self._policy(batch.token, batch.policy_version)
        if policy is None:
            return None
        n_histories = len(batch.slates)
        rng = np.random.default_rng([batch.generator_id, batch.sequence_number])
        rows = np.sort(rng.permutation(n_histories)[:AUDITED_HISTORIES])
        histories, slates = batch.histories.take(rows), batch.slates[rows]
        may = candidates(histories, policy.n_items, slates.shape[2], None)
        states = policy.backbone(torch.float32).slate_states(policy.lay_out(histories, slates))
        log_probs, _ = chosen_log_probs(
            states,
            policy.item_weights,
            torch.from_numpy(may).to(policy.device),
            torch.from_numpy(slates).long().to(policy.device),
            batch.temperature,
        )
        return float(np.abs(log_probs.cpu().numpy() - batch.log_probs[rows]).mean())

    def _policy(self, token: int, version: int) -> GPTRec | None:
        """Read a policy, or take one of the last few that were read; None for one that is gone."""
        policy = self._policies.pop((token, version), None)
        if policy is None:
            entry = self._store.policy(token, version)
            if entry is None:
                return None
            try:
                with self._store.hold(entry, "auditor"):
                    files = self._store.read(entry)
            except CheckpointError as error:
                logger.warning("no audit of version %d: %s", version, error)
                return None
            policy = GPTRec.from_files(files).eval().to(self._device)
        self._policies[token, version] = policy
        while len(self._policies) > KEPT_VERSIONS:
            del self._policies[next(iter(self._policies))]
        return policy
