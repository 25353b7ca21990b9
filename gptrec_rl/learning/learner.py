"""The Learner: PPO updates of policy and value model from rollout batches (section 3.2, Appendix A.3)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from gptrec_rl.config import PpoConfig, Precision
from gptrec_rl.data import Histories
from gptrec_rl.decoding.masking import chosen_log_probs, slate_log_probs
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.goals import Goal, weighted_sum
from gptrec_rl.learning import corrections, gae, losses, state
from gptrec_rl.learning.rollout import Rollout
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.sequence import Sequences
from gptrec_rl.models.value import ValueModel
from gptrec_rl.recommender import candidates


@dataclass(frozen=True)
class UpdateStats:
    """What one update saw, as means over its passes.

    Attributes:
        reward: mean weighted reward of a list.
        policy_loss: equation (12), or the correction that replaces it.
        value_loss: equation (8); 0 with the group baseline.
        clip_fraction: share of ratios past the correction's bounds: outside 1 - epsilon..1 + epsilon, or truncated.
        approx_kl: KL(behaviour || policy) per item in nats, estimated (k3).
        entropy: of the choices in nats.
        explained_variance: of the value targets, at the first pass; 0 with the group baseline.
        reference_kl: KL(policy || student) per item in nats; 0 where no reference is loaded.
        gradient_norm: of the policy, before clipping.
        ratio_error: largest |ratio - 1| at the first pass; at lag 0 it is rounding alone.
        effective_sample_size: of the batch's items at the first pass, as a share of them; 1 at lag 0.
        n_skipped: passes whose loss was not finite.
    """

    reward: float
    policy_loss: float = 0.0
    value_loss: float = 0.0
    clip_fraction: float = 0.0
    approx_kl: float = 0.0
    entropy: float = 0.0
    explained_variance: float = 0.0
    reference_kl: float = 0.0
    gradient_norm: float = 0.0
    ratio_error: float = 0.0
    effective_sample_size: float = 1.0
    n_skipped: int = 0


@dataclass(frozen=True)
class _Batch:
    """A rollout on the learner's device, laid out once for all models and passes; [B, G, K] unless said otherwise.

    The histories are sorted by length, which is how they have the least padding.
    """

    sequences: Sequences
    slates: torch.Tensor
    may: torch.Tensor  # [B, I]
    ground_truth: torch.Tensor  # [B]
    rewards: torch.Tensor
    returns: torch.Tensor
    behaviour_log_probs: torch.Tensor
    temperature: float


@dataclass(frozen=True)
class _Outputs:
    """What the models make of a batch in one pass, with gradients; [B, G, K] unless said otherwise."""

    states: torch.Tensor  # [B, G, K, D]
    log_probs: torch.Tensor
    entropies: torch.Tensor
    values: torch.Tensor | None


@dataclass(frozen=True)
class _Targets:
    """What all passes over a batch aim at; [B, G, K] unless said otherwise."""

    returns: torch.Tensor
    advantages: torch.Tensor
    old_values: torch.Tensor
    old_log_probs: torch.Tensor
    reference: torch.Tensor | None  # log-probabilities of all items, [B, G, K, I]; None without a KL penalty
    teaches_policy: bool


class Learner:
    """Policy, value model and their optimisers; both models run in eval mode, without dropout, as the generators do.

    Args:
        student: where policy, value model and reference start from; not changed.
        goal: weights of the rewards.
        config: settings of PPO.
        precision: of matrix products.
        seed: of the value head.
    """

    def __init__(
        self, student: GPTRec, goal: Goal, config: PpoConfig, precision: Precision = "auto", seed: int = 0
    ) -> None:
        self.policy = copy.deepcopy(student).eval()
        self.step = 0
        self._goal = goal
        self._config = config
        self._dtype = product_dtype(precision, student.device, student.width)
        self._kl_weight = config.kl_weight
        self._n_skipped_in_a_row = 0
        self._reference = copy.deepcopy(student).eval() if config.kl_weight > 0 else None
        self._policy_optimiser = self._adamw(self.policy, config.policy_learning_rate)
        self._value: ValueModel | None = None
        self._value_optimiser: torch.optim.Optimizer | None = None
        if config.baseline == "value":
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self._value = ValueModel(student).eval()
            self._value_optimiser = self._adamw(self._value, config.value_learning_rate)

    def update(self, rollout: Rollout) -> UpdateStats:
        """Take `passes` gradient steps on a batch and count one learner step.

        A pass whose loss is not finite changes nothing and is counted. Where every advantage is 0 and no other term of
        the loss is set, the policy stays as it is to the bit: neither momentum nor weight decay moves it.

        Raises:
            DivergedError: `max_skipped_steps` losses in a row were not finite.
            InputError: the batch can't be learned from with these settings.
        """
        batch = self._laid_out(rollout)
        targets: _Targets | None = None
        passes = []
        for _ in range(self._config.passes):
            outputs = self._outputs(batch)
            if targets is None:  # the first pass's values are those that GAE needs: nothing has been learned since
                targets = self._targets(batch, outputs)
            stats = self._pass(batch, targets, outputs)
            if stats is None:
                self._n_skipped_in_a_row += 1
                if self._n_skipped_in_a_row >= self._config.max_skipped_steps:
                    raise self._diverged(f"{self._n_skipped_in_a_row} losses in a row were not finite")
            else:
                self._n_skipped_in_a_row = 0
                passes.append(stats)
        assert targets is not None
        self.step += 1
        n = max(len(passes), 1)
        means = {name: sum(stats[name] for stats in passes) / n for name in (passes[0] if passes else {})}
        if passes:
            means |= {name: passes[0][name] for name in ("ratio_error", "effective_sample_size")}
        if self._config.kl_target is not None and passes:
            self._kl_weight = losses.adapted_kl_weight(self._kl_weight, means["reference_kl"], self._config.kl_target)
        return UpdateStats(
            reward=batch.rewards.sum(dim=-1).mean().item(),
            explained_variance=losses.explained_variance(targets.old_values, targets.returns) if self._value else 0.0,
            n_skipped=self._config.passes - len(passes),
            **means,
        )

    def require_finite(self) -> None:
        """Refuse to keep what nobody can go on from.

        Raises:
            DivergedError: a weight of the policy or the value model isn't finite, or so large that no loss will be; or
                what the policy says of a new user isn't.
        """
        if not (state.is_finite(self.policy) and (self._value is None or state.is_finite(self._value))):
            raise self._diverged("weights are not finite")
        with torch.inference_mode():
            list_of_first = torch.arange(1, min(self.policy.slate_length, self.policy.n_items) + 1)[None, None]
            logits = self.policy.slate_logits(Histories.of([[]]), list_of_first, self._dtype)
        if not bool(logits.isfinite().all()):
            raise self._diverged("the policy's logits are not finite")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} at step {self.step}; resume from the last learner state with a smaller ppo.policy_learning_rate"
        )

    def _laid_out(self, rollout: Rollout) -> _Batch:
        """Sort a batch by length of history and put it on the device; masks follow from the whole histories."""
        policy = self.policy
        if rollout.slates.shape[2] > policy.slate_length:
            raise InputError(
                f"the batch has lists of {rollout.slates.shape[2]} items and the policy writes {policy.slate_length}; "
                "generate with this run's own policies"
            )
        order = np.argsort(-np.minimum(rollout.histories.lengths, policy.history_length), kind="stable")
        histories, slates = rollout.histories.take(order), rollout.slates[order]
        may = candidates(histories, policy.n_items, slates.shape[2], None)

        def moved(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(policy.device)

        rewards = weighted_sum(rollout.rewards, self._goal)[order]
        # On the host: a GPU takes longer to launch so many small sums than to be handed the last one.
        returns = gae.discounted_returns(torch.from_numpy(rewards), self._config.gamma)

        return _Batch(
            sequences=policy.lay_out(histories, slates),
            slates=moved(slates).long(),
            may=moved(may),
            ground_truth=moved(rollout.ground_truth[order]),
            rewards=moved(rewards),
            returns=returns.to(policy.device),
            behaviour_log_probs=moved(rollout.log_probs[order]),
            temperature=rollout.temperature,
        )

    def _targets(self, batch: _Batch, outputs: _Outputs) -> _Targets:
        """Compute value targets and advantages from the first pass; they stay the same for all passes."""
        config, returns = self._config, batch.returns
        if outputs.values is None:
            if batch.slates.shape[1] < 2:
                raise InputError(
                    "ppo.baseline is 'group' and the batch has 1 list a history, so there is nothing to compare it "
                    "with; set fleet.n_lists to 2 or more, or ppo.baseline to 'value'"
                )
            old_values = torch.zeros_like(batch.rewards)
            advantages = gae.leave_one_out_advantages(returns)
        else:
            old_values = outputs.values.detach()
            advantages = gae.generalised_advantages(batch.rewards, old_values, config.gamma, config.gae_lambda)
        if config.correction == "vtrace":
            weights = corrections.truncated_weights(outputs.log_probs, batch.behaviour_log_probs, config.truncation)
            traced = gae.v_trace(batch.rewards, old_values, weights, config.gamma, config.gae_lambda)
            returns, advantages = traced.targets, traced.advantages
        if config.normalise_advantages:
            advantages = losses.normalised(advantages)
        has_other_terms = bool(config.entropy_bonus or config.guidance or config.kl_weight)
        teaches_policy = has_other_terms or bool(advantages.any())
        return _Targets(
            returns,
            advantages,
            old_values,
            outputs.log_probs.detach(),
            self._reference_log_probs(batch),
            teaches_policy,
        )

    def _reference_log_probs(self, batch: _Batch) -> torch.Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            return self._all_log_probs(self._reference, self._states(self._reference, batch), batch)

    def _pass(self, batch: _Batch, targets: _Targets, outputs: _Outputs) -> dict[str, float] | None:
        """Take one gradient step of each model; return what was seen, or None for a loss that is not finite."""
        self._policy_optimiser.zero_grad(set_to_none=True)
        policy_loss, stats = self._policy_loss(batch, targets, outputs)
        value_loss = torch.zeros((), device=policy_loss.device)
        if outputs.values is not None and self._value_optimiser is not None:
            self._value_optimiser.zero_grad(set_to_none=True)
            value_loss = losses.value_loss(outputs.values, targets.returns, targets.old_values, self._config.value_clip)
        if not torch.isfinite(policy_loss + value_loss):
            return None
        (policy_loss + value_loss).backward()  # equation (13): the two share no parameter
        norm = self._clip(self.policy)
        if not torch.isfinite(norm):
            return None
        if self._value is not None and self._value_optimiser is not None:
            if not torch.isfinite(self._clip(self._value)):
                return None
            self._value_optimiser.step()
        if targets.teaches_policy:
            self._policy_optimiser.step()
        return {**stats, "value_loss": value_loss.item(), "gradient_norm": norm.item()}

    def _policy_loss(
        self, batch: _Batch, targets: _Targets, outputs: _Outputs
    ) -> tuple[torch.Tensor, dict[str, float]]:
        config, behaviour = self._config, batch.behaviour_log_probs
        corrected = corrections.policy_loss(
            config, outputs.log_probs, behaviour, targets.old_log_probs, targets.advantages
        )
        loss, entropy = corrected.loss, outputs.entropies.mean()
        if config.entropy_bonus:
            loss = loss - config.entropy_bonus * entropy
        reference_kl = 0.0
        if targets.reference is not None:
            kl = losses.mean_kl(self._all_log_probs(self.policy, outputs.states, batch), targets.reference)
            loss, reference_kl = loss + self._kl_weight * kl, kl.item()
        if config.guidance:
            truth = batch.ground_truth[:, None, None]
            guided, _ = self._chosen(outputs.states[:, :1, :1], truth, batch)
            loss = loss - config.guidance * guided.mean()
        return loss, {
            "policy_loss": corrected.loss.item(),
            "clip_fraction": corrected.clip_fraction,
            **asdict(corrections.drift(outputs.log_probs, behaviour)),
            "entropy": entropy.item(),
            "reference_kl": reference_kl,
        }

    def _outputs(self, batch: _Batch) -> _Outputs:
        values = self._value(batch.sequences, self._dtype) if self._value is not None else None
        states = self._states(self.policy, batch)
        return _Outputs(states, *self._chosen(states, batch.slates, batch), values)

    def _states(self, policy: GPTRec, batch: _Batch) -> torch.Tensor:
        return policy.backbone(self._dtype).slate_states(batch.sequences)

    def _chosen(self, states: torch.Tensor, slates: torch.Tensor, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return chosen_log_probs(states, self.policy.item_weights, batch.may, slates, batch.temperature, self._dtype)

    def _all_log_probs(self, policy: GPTRec, states: torch.Tensor, batch: _Batch) -> torch.Tensor:
        return slate_log_probs(policy.item_logits(states), batch.may, batch.slates, batch.temperature)

    def _clip(self, model: nn.Module) -> torch.Tensor:
        return nn.utils.clip_grad_norm_(model.parameters(), self._config.gradient_clip or float("inf"))

    def _adamw(self, model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=self._config.weight_decay, fused=True
        )

    def to_files(self) -> dict[str, bytes]:
        """Return the learner state: both models, optimiser moments and counters."""
        counters = {"step": self.step, "kl_weight": self._kl_weight, "skipped_in_a_row": self._n_skipped_in_a_row}
        files = {
            **{f"policy.{name}": data for name, data in self.policy.to_files().items()},
            "policy_optimiser.safetensors": state.optimiser_to_bytes(self._policy_optimiser),
            "learner.json": json.dumps(counters).encode(),
        }
        if self._value is not None and self._value_optimiser is not None:
            files["value.safetensors"] = state.tensors_to_bytes(self._value.state_dict())
            files["value_optimiser.safetensors"] = state.optimiser_to_bytes(self._value_optimiser)
        return files

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on from what `to_files` returned.

        Raises:
            InputError: the state is of a learner with another baseline.
        """
        if (self._value is not None) != ("value.safetensors" in files):
            raise InputError(
                f"the saved learner state and ppo.baseline {self._config.baseline!r} disagree about the value model; "
                "resume with the run's own configuration, or start a new run"
            )
        part = {name.removeprefix("policy."): data for name, data in files.items() if name.startswith("policy.")}
        self.policy.load_state_dict(GPTRec.from_files(part).state_dict())
        state.optimiser_from_bytes(self._policy_optimiser, files["policy_optimiser.safetensors"])
        if self._value is not None and self._value_optimiser is not None:
            self._value.load_state_dict(state.tensors_from_bytes(files["value.safetensors"]))
            state.optimiser_from_bytes(self._value_optimiser, files["value_optimiser.safetensors"])
        counters = json.loads(files["learner.json"])
        self.step = int(counters["step"])
        if self._config.kl_target is not None:
            self._kl_weight = float(counters["kl_weight"])
        self._n_skipped_in_a_row = int(counters["skipped_in_a_row"])
