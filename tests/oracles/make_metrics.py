"""Write metrics.json: what other libraries measure of a few lists.

They want other versions of NumPy and pandas than this project, so this is run by hand, in an environment of its own:

    pip install rectools==0.19.0
    pip install --no-deps recbole==1.2.1
    pip install torch scikit-learn colorlog colorama pyyaml tabulate texttable thop psutil tensorboard plotly "numpy<2"
    python tests/oracles/make_metrics.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import AveragePopularity, GiniIndex, ItemCoverage, TailPercentage
from rectools import metrics

N_ITEMS, K = 12, 5
USERS_OF_ITEM = [2, 10, 0, 6, 1, 8, 3, 0, 4, 9, 1, 2]
"""Items 2, 4, 6, 9 and 10 have 37 of 46 interactions: the short head. The others have 3 users or fewer."""
TAIL = 3
TRAINING = [((3 * item + n) % 10 + 1, item + 1) for item, users in enumerate(USERS_OF_ITEM) for n in range(users)]
LISTS = [[(5 * user + place * (1, 5, 7, 11)[user % 4]) % N_ITEMS + 1 for place in range(K)] for user in range(9)]


def of_rectools(k: int) -> dict[str, object]:
    """Values a user, and the covered share of the catalogue."""
    training = pd.DataFrame(TRAINING, columns=["user_id", "item_id"])
    rows = [(user, item, rank) for user, items in enumerate(LISTS) for rank, item in enumerate(items, start=1)]
    lists = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
    return {
        "MeanInvUserFreq": metrics.MeanInvUserFreq(k=k).calc_per_user(lists, training).tolist(),
        "AvgRecPopularity": metrics.AvgRecPopularity(k=k, normalize=True).calc_per_user(lists, training).tolist(),
        "CatalogCoverage": metrics.CatalogCoverage(k=k, normalize=True).calc(lists, range(1, N_ITEMS + 1)),
    }


def of_recbole(k: int) -> dict[str, float]:
    """Means over users, and what describes all lists; RecBole rounds."""
    data = DataStruct()
    data.set("rec.items", torch.tensor(LISTS))
    data.set("data.num_items", N_ITEMS)
    data.set("data.count_items", dict(enumerate(USERS_OF_ITEM, start=1)))
    config = {"topk": [k], "tail_ratio": TAIL, "metric_decimal_place": 12}
    values = {}
    for metric in (AveragePopularity, GiniIndex, ItemCoverage, TailPercentage):
        (values[metric.__name__],) = metric(config).calculate_metric(data).values()
    return {name: float(value) for name, value in values.items()}


if __name__ == "__main__":
    oracles = {
        "made_by": "tests/oracles/make_metrics.py",
        "versions": {name: version(name) for name in ("rectools", "recbole")},
        "n_items": N_ITEMS,
        "training": TRAINING,
        "lists": LISTS,
        "at": {str(k): {"rectools": of_rectools(k), "recbole": of_recbole(k)} for k in (3, K)},
    }
    Path(__file__).with_name("metrics.json").write_text(json.dumps(oracles) + "\n")
