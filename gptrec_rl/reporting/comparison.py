"""The table and the picture at the end of the demo and of a fleet of containers: teacher, student, what was tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptrec_rl.data import Split
from gptrec_rl.evaluation import evaluate
from gptrec_rl.recommender import Recommender
from gptrec_rl.reporting.figures import drawn, trade_off
from gptrec_rl.reporting.tables import Row, text_table

ACCURACY = "NDCG@10"
TRADED = ("ILD@10", "nPCOUNT@10")


@dataclass(frozen=True)
class Compared:
    """A model of the comparison; those of one group look alike in the picture."""

    name: str
    group: str
    recommender: Recommender


def compare(models: Sequence[Compared], split: Split, picture: Path, title: str) -> tuple[str, bool]:
    """Evaluate models on the test users and draw what they trade for accuracy; return the table, and whether it is."""
    rows = [Row.of(evaluate(model.recommender, split.test, split, name=model.name), model.group) for model in models]
    across = [name for name in TRADED if math.isfinite(rows[0].values.get(name, math.nan))]  # ILD needs genres
    is_drawn = drawn("The picture", lambda: trade_off(rows, picture, across=across, up=ACCURACY, title=title))
    return text_table(rows, (ACCURACY, *across)), is_drawn
