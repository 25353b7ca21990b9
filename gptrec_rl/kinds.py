"""The kinds of models, by name. A new one is a class and a line in a table (docs/extending.md).

What a kind is made of is imported when it is asked for, so that commands start fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptrec_rl.config import Precision, TrainingConfig
    from gptrec_rl.data import Split
    from gptrec_rl.learning.training import Training
    from gptrec_rl.models.network import Network
    from gptrec_rl.recommender import Recommender, ScoringRecommender, Strategy


class Kind(ABC):
    """A kind of trained model: its network, how it learns, and how it recommends."""

    @property
    @abstractmethod
    def network(self) -> type[Network]:
        """The class of its networks, which is this kind's alone."""

    @property
    def config(self) -> type[TrainingConfig]:
        """The settings of its training, which are this kind's alone."""
        raise TypeError(f"{type(self).__name__} has no settings: `train` doesn't make it")

    def training(self, config: Any, split: Split) -> Training[Any]:
        """Make the training of a new model, from torch's current random state.

        Args:
            config: an instance of `config`.
            split: the data.

        Raises:
            InputError: a history leaves too few items for the lists that the model is validated by.
        """
        raise TypeError(f"{type(self).__name__} is not made by a training of its own")

    @abstractmethod
    def scorer(self, network: Any, precision: Precision) -> ScoringRecommender:
        """Return a network, of this kind, as one that recommends what it scores highest (Top-K)."""

    def recommender(self, network: Any, strategy: Strategy | None, precision: Precision) -> Recommender:
        """Return a network, of this kind, as one that recommends by a strategy; None: the one it is trained for.

        A model that scores writes lists item by item by appending each item to the history.
        """
        from gptrec_rl.decoding import Appending

        scorer = self.scorer(network, precision)
        return Appending(scorer) if strategy == "next-k" else scorer


class Policy(Kind):
    """GPTRec, made by `pretrain` and `tune`."""

    @property
    def network(self) -> type[Network]:
        """GPTRec."""
        from gptrec_rl.models.gptrec import GPTRec

        return GPTRec

    def scorer(self, network: Any, precision: Precision) -> ScoringRecommender:
        """Return Top-K over the logits of a list's first item."""
        from gptrec_rl.decoding import TopK

        return TopK(network, precision)

    def recommender(self, network: Any, strategy: Strategy | None, precision: Precision) -> Recommender:
        """Return Next-K, its own, or Top-K."""
        from gptrec_rl.decoding import NextK

        return self.scorer(network, precision) if strategy == "top-k" else NextK(network, precision)


class NextItemKind(Kind):
    """A Transformer that learns to predict the next item at every place of a history; a subclass says which one."""

    def training(self, config: Any, split: Split) -> Training[Any]:
        """Train on the best device that there is."""
        from gptrec_rl.learning.next_item import VALIDATED, NextItemTraining
        from gptrec_rl.models.precision import best_device

        split.require_room(VALIDATED)
        network: Any = self.network
        model = network.create(split.catalogue.n_items, config.model, config.dropout)
        return NextItemTraining(model.to(best_device()), split, config)

    def scorer(self, network: Any, precision: Precision) -> ScoringRecommender:
        """Return Top-K over the logits of the next item."""
        from gptrec_rl.decoding import TopK

        return TopK(network, precision)


class SASRecKind(NextItemKind):
    """SASRec, with one of three losses."""

    @property
    def network(self) -> type[Network]:
        """SASRec."""
        from gptrec_rl.models.next_item import SASRec

        return SASRec

    @property
    def config(self) -> type[TrainingConfig]:
        """SASRec's settings."""
        from gptrec_rl.config import SASRecConfig

        return SASRecConfig


class ShiftingKind(NextItemKind):
    """GPTRec-Shifting."""

    @property
    def network(self) -> type[Network]:
        """GPTRec-Shifting."""
        from gptrec_rl.models.next_item import GPTRecShifting

        return GPTRecShifting

    @property
    def config(self) -> type[TrainingConfig]:
        """GPTRec-Shifting's settings."""
        from gptrec_rl.config import ShiftingConfig

        return ShiftingConfig


class Bert4RecKind(Kind):
    """BERT4Rec."""

    @property
    def network(self) -> type[Network]:
        """BERT4Rec."""
        from gptrec_rl.models.bert4rec import Bert4Rec

        return Bert4Rec

    @property
    def config(self) -> type[TrainingConfig]:
        """BERT4Rec's settings."""
        from gptrec_rl.config import Bert4RecConfig

        return Bert4RecConfig

    def training(self, config: Any, split: Split) -> Training[Any]:
        """Train on the best device that there is."""
        from gptrec_rl.learning.masked_item import MaskedItemTraining
        from gptrec_rl.learning.next_item import VALIDATED
        from gptrec_rl.models.bert4rec import Bert4Rec
        from gptrec_rl.models.precision import best_device

        split.require_room(VALIDATED)
        model = Bert4Rec.create(split.catalogue.n_items, config.model, config.dropout)
        return MaskedItemTraining(model.to(best_device()), split, config)

    def scorer(self, network: Any, precision: Precision) -> ScoringRecommender:
        """Return the scores of a mask behind the history."""
        from gptrec_rl.models.bert4rec import MaskScorer

        return MaskScorer(network, precision)


class BprKind(Kind):
    """MF-BPR, always on the processor and in fp32."""

    @property
    def network(self) -> type[Network]:
        """Matrix factorisation."""
        from gptrec_rl.models.bpr import MatrixFactorization

        return MatrixFactorization

    @property
    def config(self) -> type[TrainingConfig]:
        """MF-BPR's settings."""
        from gptrec_rl.config import BprConfig

        return BprConfig

    def training(self, config: Any, split: Split) -> Training[Any]:
        """Train with the library `implicit`."""
        from gptrec_rl.learning.bpr import BprTraining
        from gptrec_rl.models.bpr import MatrixFactorization

        return BprTraining(MatrixFactorization.create(split, config.model.n_factors), split, config)

    def scorer(self, network: Any, precision: Precision) -> ScoringRecommender:
        """Return the network itself."""
        scorer: ScoringRecommender = network
        return scorer


def _markov(split: Split) -> ScoringRecommender:
    from gptrec_rl.models.markov import MarkovChain

    return MarkovChain(split)


def _popularity(split: Split) -> ScoringRecommender:
    from gptrec_rl.models.markov import PopularityRecommender

    return PopularityRecommender(split)


KINDS: dict[str, Kind] = {
    "gptrec": Policy(),
    "sasrec": SASRecKind(),
    "shifting": ShiftingKind(),
    "bert4rec": Bert4RecKind(),
    "bpr": BprKind(),
}
"""By what commands, and a model's `config.json` under "recommender", call them."""
BUILT_IN: dict[str, Callable[[Split], ScoringRecommender]] = {"markov": _markov, "popularity": _popularity}
"""Models that need no training, made of a split's training data; a folder names any other."""


def trained_kinds() -> dict[str, Kind]:
    """Return what `gptrec-rl train` trains."""
    return {name: kind for name, kind in KINDS.items() if type(kind).training is not Kind.training}


def training_of(config: TrainingConfig, split: Split) -> Training[Any]:
    """Make the training of the model that a configuration is for; see `Kind.training`."""
    return KINDS[kind_of(config)].training(config, split)


def kind_of(config: TrainingConfig) -> str:
    """Return the name of the kind of model that a configuration trains."""
    for name, kind in trained_kinds().items():
        if type(config) is kind.config:
            return name
    raise TypeError(f"no model is trained with a {type(config).__name__}")


def recommender_of(network: Network, strategy: Strategy | None = None, precision: Precision = "auto") -> Recommender:
    """Return a network of any kind as one that recommends; see `Kind.recommender`."""
    return _kind_of(network).recommender(network, strategy, precision)


def scorer_of(network: Network, precision: Precision = "auto") -> ScoringRecommender:
    """Return a network of any kind as one that scores; see `Kind.scorer`."""
    return _kind_of(network).scorer(network, precision)


def _kind_of(network: Network) -> Kind:
    for kind in KINDS.values():
        if type(network) is kind.network:
            return kind
    raise TypeError(f"no kind of model has a {type(network).__name__}; add one to KINDS")
