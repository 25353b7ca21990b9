"""What commands call a model: `markov`, `popularity`, or a trained model's or a run's folder, as in `a=runs/a`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptrec_rl.errors import InputError
from gptrec_rl.kinds import BUILT_IN, recommender_of

if TYPE_CHECKING:
    from gptrec_rl.config import Precision
    from gptrec_rl.data import Split
    from gptrec_rl.recommender import Recommender, Strategy


@dataclass(frozen=True)
class ModelChoice:
    """A model as the command line names it.

    Attributes:
        name: what tables call it.
        place: one of `BUILT_IN`, or a folder.
    """

    name: str
    place: str

    @classmethod
    def parse(cls, text: str) -> ModelChoice:
        """Read `name=place`, or a place alone, which is then called by its last part."""
        name, equals, place = text.partition("=")
        if equals and name and not Path(text).is_dir() and "/" not in name:
            return cls(name, place)
        return cls(text if text in BUILT_IN else Path(text).resolve().name, text)

    @property
    def is_trained(self) -> bool:
        """Whether this is a trained model, which can make its lists by either strategy."""
        return self.place not in BUILT_IN

    def open(self, split: Split, strategy: Strategy | None, precision: Precision) -> Recommender:
        """Load the trained model, or make the built-in one from the split's training data.

        Args:
            split: the data.
            strategy: how a trained model makes its lists; None: the way that it is trained for.
            precision: of a trained model's matrix products.

        Raises:
            InputError: there is no such model, it is damaged, or it was trained on another catalogue.
        """
        if not self.is_trained:
            return BUILT_IN[self.place](split)
        from gptrec_rl.models.precision import best_device
        from gptrec_rl.store.trained_models import load_model

        return recommender_of(load_model(self._folder, split.catalogue).to(best_device()), strategy, precision)

    def trained_on(self, split: Split) -> bool:
        """Tell whether the model is of exactly this split; a built-in one always is."""
        if not self.is_trained:
            return True
        from gptrec_rl.store.trained_models import read_model

        return read_model(self._folder)[0].split_hash == split.hash

    @property
    def identity(self) -> str:
        """What it is wherever it lies: a built-in model's name, or a trained one's `fingerprint`; errors as there."""
        if not self.is_trained:
            return self.place
        from gptrec_rl.store.trained_models import fingerprint

        return fingerprint(self._folder)

    @property
    def _folder(self) -> Path:
        folder = Path(self.place)
        if not folder.is_dir():
            raise InputError(
                f"there is no model {self.place!r}: give {', '.join(BUILT_IN)}, or the folder of a policy or a run"
            )
        return folder
