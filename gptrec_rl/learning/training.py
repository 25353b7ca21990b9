"""What trainings share: budgets, the best weights by validation, saving, resuming; and updates by Adam, for most."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch

from gptrec_rl.config import AdamConfig, TrainingConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.learning import state
from gptrec_rl.models.network import Network
from gptrec_rl.models.precision import product_dtype

N = TypeVar("N", bound=Network)

WARMUP_SHARE = 0.1
"""Of a budget; a warm-up that takes longer would leave nothing to learn in."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: updates so far.
        elapsed_s: seconds so far, those before a resume included.
        fraction: share of the budget that is used, 0..1; None without a budget.
        loss: of this step.
        validation_loss: only after steps that ended in a validation.
        best_validation_loss: so far.
        examples_per_s: of this step.
    """

    step: int
    elapsed_s: float
    fraction: float | None
    loss: float
    validation_loss: float | None
    best_validation_loss: float
    examples_per_s: float


class Training(ABC, Generic[N]):
    """A training as an object that can be run, saved and resumed.

    Args:
        network: untrained, trained in place.
        split: the data.
        config: budgets and settings.

    Raises:
        InputError: the network is for another number of items.

    Attributes:
        examples_per_step: how many examples an update learns from.
    """

    validates: ClassVar[str]
    """What `validation_loss` is, in words."""
    examples_per_step: int
    few_steps: ClassVar[int] = 1
    """A training of fewer steps has seldom learned more than what is popular."""

    def __init__(self, network: N, split: Split, config: TrainingConfig) -> None:
        if network.n_items != split.catalogue.n_items:
            raise InputError(
                f"the model is for {network.n_items} items and the catalogue has {split.catalogue.n_items}; "
                "use the data that the model was made for"
            )
        self.network = network
        self.config = config
        self.step = 0
        self.elapsed_s = 0.0
        self.best_loss = math.inf
        self.best_files: Mapping[str, bytes] = network.to_files()
        self._validations_since_best = 0

    @abstractmethod
    def _update(self, rng: np.random.Generator) -> float:
        """Draw a batch and learn from it; return its loss.

        Raises:
            DivergedError: the loss is not finite.
        """

    @abstractmethod
    def _validation_loss(self) -> float:
        """Return what the best weights have least of; called in eval mode, without gradients."""

    @property
    def is_done(self) -> bool:
        """Whether a budget or the patience has ended."""
        fraction = self.fraction
        return (fraction is not None and fraction >= 1) or self._validations_since_best >= self.config.patience

    @property
    def fraction(self) -> float | None:
        """Share of the budget that is used; None without a budget."""
        used = [
            spent / budget
            for spent, budget in (
                (self.elapsed_s, self.config.max_minutes and 60 * self.config.max_minutes),
                (self.step, self.config.max_steps),
            )
            if budget is not None
        ]
        return min(1.0, max(used)) if used else None

    def run(self, on_step: Callable[[Progress], None] = lambda progress: None) -> None:
        """Train until a budget or the patience ends; the network ends as the best by validation."""
        while not self.is_done:
            started = time.monotonic()
            loss = self._update(np.random.default_rng((self.config.seed, self.step)))  # a resumed run draws the same
            self.step += 1
            seconds = time.monotonic() - started
            self.elapsed_s += seconds
            validation_loss = None
            if self.step % self.config.validate_every == 0 or self.is_done:
                started = time.monotonic()
                validation_loss = self._validate()
                self.elapsed_s += time.monotonic() - started
            rate = self.examples_per_step / seconds
            on_step(Progress(self.step, self.elapsed_s, self.fraction, loss, validation_loss, self.best_loss, rate))
        self.network.load_state_dict(self.network.from_files(self.best_files).state_dict())
        self.network.eval()

    @torch.no_grad()
    def _validate(self) -> float:
        self.network.eval()
        loss = self._validation_loss()
        self._validations_since_best += 1
        if loss < self.best_loss:
            self.best_loss, self.best_files, self._validations_since_best = loss, self.network.to_files(), 0
        return loss

    def require_finite(self) -> None:
        """Refuse to keep what a training can't go on from.

        Raises:
            DivergedError: a weight isn't finite, or so large that the next loss won't be.
        """
        if not state.is_finite(self.network):
            raise self._diverged("weights are not finite")

    def _diverged(self, what: str) -> DivergedError:
        rate = getattr(self.config, "learning_rate", 0.0)
        return DivergedError(
            f"the training diverged: {what} at step {self.step}; what was saved before is as it was: go on from there "
            f"with --on-existing resume and a learning_rate below {rate:g}"
        )

    def to_files(self) -> dict[str, bytes]:
        """Return everything that resuming needs: weights, best weights, counters."""
        counters = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best_loss": self.best_loss,
            "validations_since_best": self._validations_since_best,
        }
        return {
            **{f"network.{name}": data for name, data in self.network.to_files().items()},
            **{f"best.{name}": data for name, data in self.best_files.items()},
            "counters.json": json.dumps(counters).encode(),
        }

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on from what `to_files` returned."""
        part = {name.removeprefix("network."): data for name, data in files.items() if name.startswith("network.")}
        self.network.load_state_dict(self.network.from_files(part).state_dict())
        self.best_files = {name.removeprefix("best."): data for name, data in files.items() if name.startswith("best.")}
        counters = json.loads(files["counters.json"])
        self.step, self.elapsed_s = counters["step"], counters["elapsed_s"]
        self.best_loss, self._validations_since_best = counters["best_loss"], counters["validations_since_best"]


class AdamTraining(Training[N]):
    """A training by Adam, with a warm-up, and a learning rate that falls along a cosine over the budget."""

    config: AdamConfig
    few_steps = 100

    def __init__(self, network: N, split: Split, config: AdamConfig) -> None:
        super().__init__(network, split, config)
        self.examples_per_step = config.batch_size
        self._dtype = product_dtype(config.precision, network.device, network.width)
        self._optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)

    @abstractmethod
    def _losses(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        """Draw a batch; yield losses of its parts, which add up to the batch's mean."""

    def _update(self, rng: np.random.Generator) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._learning_rate_factor()
        self.network.train()
        torch.manual_seed(self.config.seed + self.step)  # of dropout
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for loss in self._losses(rng):
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise self._diverged(f"the loss is {total}")
        self._optimiser.step()
        return total

    def _learning_rate_factor(self) -> float:
        """Return the share of the learning rate; the warm-up takes a tenth of the budget at most."""
        warm_up, fraction = (self.step + 1) / self.config.warmup_steps, self.fraction
        if fraction is None:
            return min(1.0, warm_up)
        return min(1.0, max(warm_up, fraction / WARMUP_SHARE)) * 0.5 * (1 + math.cos(math.pi * fraction))

    def require_finite(self) -> None:
        """Refuse to keep what a training can't go on from; see `Training.require_finite`."""
        super().require_finite()
        moments = (value for of_weights in self._optimiser.state.values() for value in of_weights.values())
        if not all(torch.as_tensor(value).isfinite().all() for value in moments):
            raise self._diverged("gradients are not finite")

    def to_files(self) -> dict[str, bytes]:
        """Return everything that resuming needs, the optimiser's moments included."""
        return {**super().to_files(), "optimiser.safetensors": state.optimiser_to_bytes(self._optimiser)}

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on from what `to_files` returned."""
        super().resume(files)
        state.optimiser_from_bytes(self._optimiser, files["optimiser.safetensors"])
