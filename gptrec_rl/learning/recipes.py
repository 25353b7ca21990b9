"""Which training makes which model; `gptrec_rl.kinds` names these functions."""

from __future__ import annotations

from typing import Any

from gptrec_rl.config import Bert4RecConfig, BprConfig, SASRecConfig, ShiftingConfig, TrainingConfig
from gptrec_rl.data import Split
from gptrec_rl.kinds import KINDS, part
from gptrec_rl.learning.training import Training
from gptrec_rl.models.precision import best_device


def training_of(config: TrainingConfig, split: Split) -> Training[Any]:
    """Make the training of the model that a configuration is for, from torch's current random state.

    Raises:
        InputError: a history leaves too few items for the lists that the model is validated by.
    """
    for kind in KINDS.values():
        if kind.training and type(config) is part(kind.config):
            training: Training[Any] = part(kind.training)(config, split)
            return training
    raise TypeError(f"no model is trained with a {type(config).__name__}")


def sasrec(config: SASRecConfig, split: Split) -> Training[Any]:
    """SASRec, on the best device that there is, as all but MF-BPR."""
    from gptrec_rl.learning.next_item import VALIDATED, NextItemTraining
    from gptrec_rl.models.sasrec import SASRec

    split.require_room(VALIDATED)
    network = SASRec.create(split.catalogue.n_items, config.model, config.dropout)
    return NextItemTraining(network.to(best_device()), split, config)


def shifting(config: ShiftingConfig, split: Split) -> Training[Any]:
    """GPTRec-Shifting."""
    from gptrec_rl.learning.next_item import VALIDATED, NextItemTraining
    from gptrec_rl.models.shifting import GPTRecShifting

    split.require_room(VALIDATED)
    network = GPTRecShifting.create(split.catalogue.n_items, config.model, config.dropout)
    return NextItemTraining(network.to(best_device()), split, config)


def bert4rec(config: Bert4RecConfig, split: Split) -> Training[Any]:
    """BERT4Rec."""
    from gptrec_rl.learning.masked_item import MaskedItemTraining
    from gptrec_rl.learning.next_item import VALIDATED
    from gptrec_rl.models.bert4rec import Bert4Rec

    split.require_room(VALIDATED)
    network = Bert4Rec.create(split.catalogue.n_items, config.model, config.dropout)
    return MaskedItemTraining(network.to(best_device()), split, config)


def bpr(config: BprConfig, split: Split) -> Training[Any]:
    """MF-BPR."""
    from gptrec_rl.learning.bpr import BprTraining
    from gptrec_rl.models.bpr import MatrixFactorization

    return BprTraining(MatrixFactorization.create(split, config.model.n_factors), split, config)
