"""The Learner: PPO updates of policy and value model from rollout batches (section 3.2, Appendix A.3)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gptrec_rl.config import PpoConfig, Precision
from gptrec_rl.decoding.masking import slate_log_probs
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.goals import Goal, weighted_sum
from gptrec_rl.learning import gae, losses, state
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import autocast
from gptrec_rl.models.recommender import candidates
from gptrec_rl.models.value import ValueModel
from gptrec_rl.transport.messages import RolloutBatch


@dataclass(frozen=True)
class UpdateStats:
    """What one update saw, as means over its passes.

    Attributes:
        reward: mean weighted reward of a list.
        policy_loss: equation (12).
        value_loss: equation (8); 0 with the group baseline.
        clip_fraction: share of ratios outside 1 - epsilon..1 + epsilon.
        approx_kl: KL(behaviour || policy) per item in nats, estimated (k3).
        entropy: of the choices in nats.
        explained_variance: of the returns by the value model, at the first pass; 0 with the group baseline.
        reference_kl: KL(policy || student) per item in nats; 0 where no reference is loaded.
        gradient_norm: of the policy, before clipping.
        ratio_error: largest |ratio - 1| at the first pass; at lag 0 it is rounding alone.
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
    n_skipped: int = 0


@dataclass(frozen=True)
class _Batch:
    """A rollout on the learner's device with its targets; [B, G, K] unless said otherwise."""

    rollout: RolloutBatch
    slates: torch.Tensor
    may: torch.Tensor  # [B, I]
    behaviour_log_probs: torch.Tensor
    returns: torch.Tensor
    advantages: torch.Tensor
    old_values: torch.Tensor


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
        self._precision = precision
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

    def update(self, rollout: RolloutBatch) -> UpdateStats:
        """Take `passes` gradient steps on a batch and count one learner step.

        A pass whose loss is not finite changes nothing and is counted.

        Raises:
            DivergedError: `max_skipped_steps` losses in a row were not finite.
            InputError: the batch can't be learned from with these settings.
        """
        batch, first = self._prepare(rollout)
        passes = []
        for _ in range(self._config.passes):
            stats = self._pass(batch)
            if stats is None:
                self._n_skipped_in_a_row += 1
                if self._n_skipped_in_a_row >= self._config.max_skipped_steps:
                    raise DivergedError(
                        f"{self._n_skipped_in_a_row} losses in a row were not finite at step {self.step}; resume from "
                        "the last learner state with a smaller ppo.policy_learning_rate"
                    )
            else:
                self._n_skipped_in_a_row = 0
                passes.append(stats)
        self.step += 1
        n = max(len(passes), 1)
        means = {name: sum(stats[name] for stats in passes) / n for name in (passes[0] if passes else {})}
        if passes:
            means["ratio_error"] = passes[0]["ratio_error"]
        if self._config.kl_target is not None and passes:
            self._kl_weight = losses.adapted_kl_weight(self._kl_weight, means["reference_kl"], self._config.kl_target)
        return UpdateStats(**first, **means, n_skipped=self._config.passes - len(passes))

    def _prepare(self, rollout: RolloutBatch) -> tuple[_Batch, dict[str, float]]:
        """Compute values, returns and advantages once: they stay the same for all passes."""
        device, config = self.policy.device, self._config
        slates = torch.from_numpy(rollout.slates).long().to(device)
        rewards = torch.from_numpy(weighted_sum(rollout.rewards, self._goal)).to(device)
        behaviour = torch.from_numpy(rollout.log_probs).to(device)
        returns = gae.discounted_returns(rewards, config.gamma)
        if self._value is None:
            if slates.shape[1] < 2:
                raise InputError(
                    "ppo.baseline is 'group' and the batch has 1 list a history, so there is nothing to compare it "
                    "with; set fleet.n_lists to 2 or more, or ppo.baseline to 'value'"
                )
            old_values = torch.zeros_like(rewards)
            advantages = gae.leave_one_out_advantages(rewards, config.gamma)
        else:
            with torch.no_grad():
                old_values = self._values(rollout, slates)
            advantages = gae.generalised_advantages(rewards, old_values, config.gamma, config.gae_lambda)
        first = {
            "reward": rewards.sum(dim=-1).mean().item(),
            "explained_variance": losses.explained_variance(old_values, returns) if self._value else 0.0,
        }
        if config.normalise_advantages:
            advantages = losses.normalised(advantages)
        return _Batch(rollout, slates, self._may(rollout), behaviour, returns, advantages, old_values), first

    def _pass(self, batch: _Batch) -> dict[str, float] | None:
        """Take one gradient step of each model; return what was seen, or None for a loss that is not finite."""
        policy_loss, stats = self._policy_loss(batch)
        value_loss = torch.zeros((), device=policy_loss.device)
        if self._value is not None:
            values = self._values(batch.rollout, batch.slates)
            value_loss = losses.value_loss(values, batch.returns, batch.old_values, self._config.value_clip)
        self._policy_optimiser.zero_grad(set_to_none=True)
        if self._value_optimiser is not None:
            self._value_optimiser.zero_grad(set_to_none=True)
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
        self._policy_optimiser.step()
        return {**stats, "value_loss": value_loss.item(), "gradient_norm": norm.item()}

    def _policy_loss(self, batch: _Batch) -> tuple[torch.Tensor, dict[str, float]]:
        config, rollout = self._config, batch.rollout
        with autocast(self._precision, self.policy.device):
            logits = self.policy.slate_logits(rollout.histories, batch.slates)
        log_probs = slate_log_probs(logits, batch.may, batch.slates, rollout.temperature)
        clipped = losses.clipped_policy_loss(
            _chosen(log_probs, batch.slates), batch.behaviour_log_probs, batch.advantages, config.clip
        )
        loss = clipped.loss
        entropy = losses.mean_entropy(log_probs if config.entropy_bonus else log_probs.detach())
        if config.entropy_bonus:
            loss = loss - config.entropy_bonus * entropy
        reference_kl = 0.0
        if self._reference is not None:
            kl = losses.mean_kl(log_probs, self._reference_log_probs(batch))
            loss, reference_kl = loss + self._kl_weight * kl, kl.item()
        if config.guidance:
            truth = torch.from_numpy(rollout.ground_truth).to(loss.device)
            loss = loss - config.guidance * log_probs[torch.arange(len(truth)), 0, 0, truth - 1].mean()
        return loss, {
            "policy_loss": clipped.loss.item(),
            "clip_fraction": clipped.clip_fraction,
            "approx_kl": clipped.approx_kl,
            "ratio_error": clipped.ratio_error,
            "entropy": entropy.item(),
            "reference_kl": reference_kl,
        }

    def _values(self, rollout: RolloutBatch, slates: torch.Tensor) -> torch.Tensor:
        assert self._value is not None
        with autocast(self._precision, self.policy.device):
            values: torch.Tensor = self._value(
                self.policy.tokens(rollout.histories), slates, self.policy.positions(0, slates.shape[2] - 1)
            )
        return values

    @torch.no_grad()
    def _reference_log_probs(self, batch: _Batch) -> torch.Tensor:
        assert self._reference is not None
        with autocast(self._precision, self.policy.device):
            logits = self._reference.slate_logits(batch.rollout.histories, batch.slates)
        return slate_log_probs(logits, batch.may, batch.slates, batch.rollout.temperature)

    def _may(self, rollout: RolloutBatch) -> torch.Tensor:
        """Masks are not shipped: they follow from the whole history, [B, I] bool."""
        may = candidates(rollout.histories, self.policy.n_items, rollout.slates.shape[2], None)
        return torch.from_numpy(may).to(self.policy.device)

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


def _chosen(log_probs: torch.Tensor, slates: torch.Tensor) -> torch.Tensor:
    """[B, G, K, I] -> [B, G, K]: those of the lists' own items."""
    return log_probs.gather(-1, slates[..., None] - 1).squeeze(-1)
