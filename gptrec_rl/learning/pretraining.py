"""Stage 1 (section 3.2): the student learns to write the lists of a teacher, by cross-entropy (equation 6)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gptrec_rl.config import PretrainConfig
from gptrec_rl.data import Histories, Split
from gptrec_rl.decoding.masking import chosen_log_probs
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.learning import state
from gptrec_rl.learning.examples import draw_cuts
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.recommender import Recommender, candidates
from gptrec_rl.models.sequence import parts_of


@dataclass(frozen=True)
class Example:
    """A batch of histories and the teacher's lists for them.

    Attributes:
        histories: B histories.
        slates: [B, 1, K] int64.
        may: items that may be recommended, [B, I] bool, on the model's device.
    """

    histories: Histories
    slates: np.ndarray
    may: torch.Tensor


@dataclass(frozen=True)
class Progress:
    """Where stage 1 stands; losses in nats per item."""

    step: int
    elapsed_s: float
    fraction: float | None
    """Share of the budget that is used, 0..1; None without a budget."""
    loss: float
    validation_loss: float | None
    """Only after steps that ended in a validation."""
    best_validation_loss: float
    examples_per_s: float


def slate_loss(policy: GPTRec, example: Example, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return equation 6 as a mean over lists and places, over the masked distribution, in nats per item.

    Args:
        policy: the student.
        example: histories and the teacher's lists.
        dtype: of the matrix products.
    """
    sequences = policy.lay_out(example.histories, example.slates)
    states = policy.backbone(dtype).slate_states(sequences)
    slates = torch.from_numpy(example.slates).to(policy.device)
    log_probs, _ = chosen_log_probs(states, policy.item_weights, example.may, slates, dtype=dtype)
    return -log_probs.mean()


class Pretraining:
    """Stage 1 as an object that can be run, saved and resumed.

    Args:
        student: an untrained policy, trained in place.
        teacher: any recommender.
        split: the data.
        config: budgets and settings.
    """

    def __init__(self, student: GPTRec, teacher: Recommender, split: Split, config: PretrainConfig) -> None:
        if student.n_items != split.catalogue.n_items:
            raise InputError(
                f"the model is for {student.n_items} items and the catalogue has {split.catalogue.n_items}; "
                "use the data that the model was made for"
            )
        self.student = student
        self.config = config
        self.step = 0
        self.elapsed_s = 0.0
        self.best_loss = math.inf
        self.best_files: Mapping[str, bytes] = student.to_files()
        self._validations_since_best = 0
        self._teacher = teacher
        self._split = split
        self._rng = np.random.default_rng(config.seed)
        self._torch_seed = config.seed
        self._dtype = product_dtype(config.precision, student.device)
        self._optimiser = torch.optim.Adam(student.parameters(), lr=config.learning_rate, fused=True)
        self._validation = list(self._parts(split.validation.histories))

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
        return max(used) if used else None

    def run(self, on_step: Callable[[Progress], None] = lambda progress: None) -> None:
        """Train until a budget or the patience ends; the student ends as the best by validation loss."""
        while not self.is_done:
            started = time.monotonic()
            cuts = draw_cuts(self._split, self.config.batch_size, self._rng).histories
            loss = self._update(cuts)
            validation_loss = None
            self.step += 1
            self.elapsed_s += time.monotonic() - started
            if self.step % self.config.validate_every == 0 or self.is_done:
                validation_started = time.monotonic()
                validation_loss = self._validate()
                self.elapsed_s += time.monotonic() - validation_started
            rate = self.config.batch_size / (time.monotonic() - started)
            on_step(Progress(self.step, self.elapsed_s, self.fraction, loss, validation_loss, self.best_loss, rate))
        best = GPTRec.from_files(self.best_files)
        self.student.load_state_dict(best.state_dict())
        self.student.eval()

    def _update(self, histories: Histories) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._learning_rate_factor()
        self.student.train()
        torch.manual_seed(self._torch_seed + self.step)  # of dropout: a resumed run draws what an unbroken one does
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for example in self._parts(histories):
            loss = slate_loss(self.student, example, self._dtype) * (len(example.histories) / len(histories))
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise DivergedError(
                f"the loss of stage 1 is {total} at step {self.step}; the best student is kept, start again with "
                f"a learning_rate below {self.config.learning_rate:g}"
            )
        self._optimiser.step()
        return total

    def _learning_rate_factor(self) -> float:
        warm_up = min(1.0, (self.step + 1) / self.config.warmup_steps)
        fraction = self.fraction
        return warm_up if fraction is None else warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))

    @torch.no_grad()
    def _validate(self) -> float:
        self.student.eval()
        losses = [slate_loss(self.student, example, self._dtype).item() for example in self._validation]
        loss = float(np.average(losses, weights=[len(example.histories) for example in self._validation]))
        self._validations_since_best += 1
        if loss < self.best_loss:
            self.best_loss, self.best_files, self._validations_since_best = loss, self.student.to_files(), 0
        return loss

    def _parts(self, histories: Histories) -> Iterator[Example]:
        """Cut a batch into parts, whose gradients add up to the batch's."""
        lengths = np.minimum(histories.lengths, self.student.history_length) + self.student.slate_length
        for rows in parts_of(lengths, rows_step=8):
            yield self._example(histories.take(rows))

    def _example(self, histories: Histories) -> Example:
        k = self.student.slate_length
        slates = self._teacher.recommend(histories, k).items
        may = candidates(histories, self.student.n_items, k, None)
        return Example(histories, slates[:, None], torch.from_numpy(may).to(self.student.device))

    def to_files(self) -> dict[str, bytes]:
        """Return everything that resuming needs: weights, best weights, moments, counters, random state."""
        counters = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best_loss": self.best_loss,
            "validations_since_best": self._validations_since_best,
            "rng": state.numpy_rng_to_json(self._rng),
        }
        return {
            **{f"student.{name}": data for name, data in self.student.to_files().items()},
            **{f"best.{name}": data for name, data in self.best_files.items()},
            "optimiser.safetensors": state.optimiser_to_bytes(self._optimiser),
            "counters.json": json.dumps(counters).encode(),
        }

    def resume(self, files: Mapping[str, bytes]) -> None:
        """Go on from what `to_files` returned."""
        part = {name.removeprefix("student."): data for name, data in files.items() if name.startswith("student.")}
        self.student.load_state_dict(GPTRec.from_files(part).state_dict())
        self.best_files = {name.removeprefix("best."): data for name, data in files.items() if name.startswith("best.")}
        state.optimiser_from_bytes(self._optimiser, files["optimiser.safetensors"])
        counters = json.loads(files["counters.json"])
        self.step, self.elapsed_s = counters["step"], counters["elapsed_s"]
        self.best_loss, self._validations_since_best = counters["best_loss"], counters["validations_since_best"]
        self._rng = state.numpy_rng_from_json(counters["rng"])
