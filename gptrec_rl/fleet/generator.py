"""The Generator (section 3.3): samples lists with the newest policy and puts them into the recommendation cache."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

import numpy as np
import torch

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.decoding.next_k import Writer
from gptrec_rl.fleet.rewards import rewards_of
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.goals import compute_rewards
from gptrec_rl.learning import state
from gptrec_rl.learning.examples import draw_cuts
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.manifest import Entry
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.reporter import Reporter
from gptrec_rl.transport.control import MAX_GENERATORS
from gptrec_rl.transport.messages import RolloutBatch

STATE_FILE = "generator.json"
SAMPLER_FILE = "generator.safetensors"

logger = logging.getLogger(__name__)


class Generator:
    """Makes one rollout batch a call, when there is a policy that is fresh enough and room in the cache.

    Args:
        split: where histories come from.
        config: the run's configuration.
        transport: what the fleet shares.
        index: which of the Supervisor's generators this is, in logs and metrics; None for one that somebody else
            starts, which counts on from `MAX_GENERATORS` by the id that the transport hands out. Random streams follow
            from the run's seed, that id and the optimiser's token, so that no two generators, no restarted one and no
            resumed run sample the same lists.
    """

    def __init__(self, split: Split, config: TuneConfig, transport: Transport, index: int | None = 0) -> None:
        self._split = split
        self._config = config
        self._transport = transport
        self._rewards = rewards_of(config, split)
        self._identity = transport.ids.allocate("generator" if index is None else f"generator-{index}")
        index = MAX_GENERATORS + self._identity.id if index is None else index
        logger.info("generator-%d is generator %d of this run", index, self._identity.id)
        self._sequence_number = 0
        self._seeded_for: int | None = None
        self._newest: Entry | None = None
        self._entry: Entry | None = None
        self._writer: Writer | None = None
        self._made: RolloutBatch | None = None
        self._waits_for = names.WAIT_POLICY
        self._held_by: str | None = None
        self.reporter = Reporter(transport.metrics, "generator", index, every_s=config.fleet.heartbeat_s)

    def step(self) -> bool:
        """Put one batch into the cache; False when there is no fresh policy, or enough batches wait there.

        A batch for which others left no room while it was made is kept for the next call: in the cache it would push
        out one that nobody has drawn.
        """
        self._refresh()
        cache = self._transport.cache
        self._waits_for, self._held_by = names.WAIT_POLICY, None
        if self._writer is None or self._entry is None:
            return False
        if cache.is_stale(self._entry.version):
            self._held_by = names.LIMIT_STALENESS
            return False
        if cache.room() and self._made is None:
            self._made = self._make(self._writer, self._entry)
        if self._made is None or not cache.room():
            self._waits_for, self._held_by = names.WAIT_ROOM, names.LIMIT_PACING
            return False
        batch, self._made = self._made, None
        cache.put(batch)
        self.reporter.count(names.SPEED_LISTS_PER_S, batch.slates.shape[0] * batch.slates.shape[1])
        self.reporter.observe(
            {names.reward(name): float(values.sum(axis=-1).mean()) for name, values in batch.rewards.items()}
        )
        return True

    def waited(self, seconds: float) -> None:
        """Note time in which there was nothing to do, for the reason that the last step had."""
        self.reporter.waited(seconds, self._waits_for, self._held_by)

    def report(self) -> None:
        """Say what was done since the last report."""
        entry = self._entry
        self.reporter.report(entry.token if entry else 0, entry.step if entry else 0)

    def to_files(self) -> dict[str, bytes]:
        """Return the random states, for a fleet in one process to go on from; there is a policy to sample with."""
        self._refresh()
        counters = {"sequence_number": self._sequence_number, "rng": state.numpy_rng_to_json(self._rng)}
        return {
            STATE_FILE: json.dumps(counters).encode(),
            SAMPLER_FILE: state.tensors_to_bytes({"sampler": self._sampler.get_state()}),
        }

    def resume(self, files: Mapping[str, bytes], token: int) -> None:
        """Go on from what `to_files` returned, with the policies of the optimiser that has this token."""
        counters = json.loads(files[STATE_FILE])
        self._sequence_number = int(counters["sequence_number"])
        self._seed(token)
        self._rng = state.numpy_rng_from_json(counters["rng"])
        self._sampler.set_state(state.tensors_from_bytes(files[SAMPLER_FILE])["sampler"])

    def _refresh(self) -> None:
        """Take up the newest policy."""
        newest = self._transport.store.latest_policy()
        if newest is None or newest == self._newest:
            return
        read = self._transport.store.read_latest_policy()
        self._newest = newest  # now that it could be read: a failure is tried again
        if read is None:
            return
        entry, files = read
        if entry.token != self._seeded_for:
            self._seed(entry.token)
        self._entry, self._writer = entry, Writer(GPTRec.from_files(files), self._config.precision)

    def _seed(self, token: int) -> None:
        self._seeded_for = token
        identity = self._identity
        seeds = np.random.SeedSequence([self._config.seed, identity.id, identity.start_count, token]).spawn(2)
        self._rng = np.random.default_rng(seeds[0])
        self._sampler = torch.Generator().manual_seed(int(seeds[1].generate_state(1, np.uint64)[0] >> 1))

    def _make(self, writer: Writer, entry: Entry) -> RolloutBatch:
        fleet = self._config.fleet
        cuts = draw_cuts(self._split, fleet.n_histories, self._rng)
        generation = writer.write(
            cuts.histories, writer.slate_length, fleet.n_lists, fleet.temperature, generator=self._sampler
        )
        slates = generation.items.numpy().astype(np.int32)
        self._sequence_number += 1
        return RolloutBatch(
            run_id=self._config.run_id,
            generator_id=self._identity.id,
            sequence_number=self._sequence_number,
            token=entry.token,
            policy_version=entry.version,
            learner_step=entry.step,
            temperature=fleet.temperature,
            created_at=time.time(),
            catalogue_hash=self._split.catalogue.hash,
            split_hash=self._split.hash,
            histories=cuts.histories,
            ground_truth=cuts.ground_truth,
            slates=slates,
            log_probs=generation.log_probs.numpy(),
            rewards=compute_rewards(self._rewards, slates, cuts.ground_truth, cuts.histories, self._split.catalogue),
        )
