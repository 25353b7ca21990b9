"""Interactions, catalogue and split, and the sources they are read from."""

from gptrec_rl.data.catalogue import Catalogue
from gptrec_rl.data.histories import Histories
from gptrec_rl.data.interactions import Interactions, Statistics, statistics
from gptrec_rl.data.split import Cases, Split, SplitConfig

__all__ = ["Cases", "Catalogue", "Histories", "Interactions", "Split", "SplitConfig", "Statistics", "statistics"]
