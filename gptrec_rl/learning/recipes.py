"""Which training makes which model."""

from __future__ import annotations

from typing import Any

from gptrec_rl.config import Bert4RecConfig, BprConfig, SASRecConfig, ShiftingConfig, TrainingConfig
from gptrec_rl.data import Split
from gptrec_rl.learning.bpr import BprTraining
from gptrec_rl.learning.masked_item import MaskedItemTraining
from gptrec_rl.learning.next_item import NextItemTraining
from gptrec_rl.learning.training import Training
from gptrec_rl.models.bert4rec import Bert4Rec
from gptrec_rl.models.bpr import MatrixFactorization
from gptrec_rl.models.next_item import NextItemTransformer
from gptrec_rl.models.precision import best_device
from gptrec_rl.models.sasrec import SASRec
from gptrec_rl.models.shifting import GPTRecShifting


def training_of(config: TrainingConfig, split: Split) -> Training[Any]:
    """Make the training of the model that a configuration is for, from torch's current random state."""
    n_items = split.catalogue.n_items
    match config:
        case SASRecConfig():
            network: NextItemTransformer = SASRec.create(n_items, config.model, config.dropout)
        case ShiftingConfig():
            network = GPTRecShifting.create(n_items, config.model, config.dropout)
        case Bert4RecConfig():
            bert = Bert4Rec.create(n_items, config.model, config.dropout)
            return MaskedItemTraining(bert.to(best_device()), split, config)
        case BprConfig():
            return BprTraining(MatrixFactorization.create(split, config.model.n_factors), split, config)
        case _:
            raise TypeError(f"no model is trained with a {type(config).__name__}")
    return NextItemTraining(network.to(best_device()), split, config)
