"""The kinds of trained models. A new one is a file of its own and a line here (docs/extending.md).

Parts are named by `module:name` and imported only when they are needed, so that commands start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

BUILT_IN = ("markov", "popularity")
"""Models that need no training; a folder names any other."""


@dataclass(frozen=True)
class Kind:
    """Where the parts of a kind of model are.

    Attributes:
        network: its class, a `gptrec_rl.models.network.Network`.
        config: the settings of its training, a `gptrec_rl.config.TrainingConfig`; empty if `train` doesn't make it.
        training: function of these settings and a split that returns a `gptrec_rl.learning.training.Training`.
    """

    network: str
    config: str = ""
    training: str = ""


KINDS = {
    "gptrec": Kind("gptrec_rl.models.gptrec:GPTRec"),  # made by `pretrain` and `tune`
    "sasrec": Kind(
        "gptrec_rl.models.sasrec:SASRec", "gptrec_rl.config:SASRecConfig", "gptrec_rl.learning.recipes:sasrec"
    ),
    "shifting": Kind(
        "gptrec_rl.models.shifting:GPTRecShifting",
        "gptrec_rl.config:ShiftingConfig",
        "gptrec_rl.learning.recipes:shifting",
    ),
    "bert4rec": Kind(
        "gptrec_rl.models.bert4rec:Bert4Rec", "gptrec_rl.config:Bert4RecConfig", "gptrec_rl.learning.recipes:bert4rec"
    ),
    "bpr": Kind(
        "gptrec_rl.models.bpr:MatrixFactorization", "gptrec_rl.config:BprConfig", "gptrec_rl.learning.recipes:bpr"
    ),
}
"""By what commands, and a model's `config.json` under "recommender", call them."""


def trained_kinds() -> tuple[str, ...]:
    """Return what `gptrec-rl train` trains."""
    return tuple(name for name, kind in KINDS.items() if kind.training)


def part(place: str) -> Any:
    """Import what `module:name` names."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
