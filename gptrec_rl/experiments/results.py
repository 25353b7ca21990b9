"""Results of rows on disk: facts as JSON, written last and naming the SHA-256 of the values per user beside them."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from gptrec_rl.data.texts import text_array
from gptrec_rl.errors import InputError
from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.config import RowConfig
from gptrec_rl.files import write_atomically
from gptrec_rl.metrics import ndcg_of_ranks
from gptrec_rl.settings import Settings
from gptrec_rl.telemetry.history import Validation

STORED = ("ILD", "PCOUNT", "nPCOUNT", "MIUF", "Tail")
"""Metrics kept per user; recall and NDCG follow from the rank."""


class Point(Settings):
    """What was measured of a row in one way: by one strategy, or with one weight of a reranker."""

    means: dict[str, float]
    """By metric name, those of all lists together included; absent where not defined."""
    standard_errors: dict[str, float]
    weight: float | None = None
    """Of the reranker."""
    goals: tuple[str, ...] = ()
    """For which it is the reranker's best weight."""


class Result(Settings):
    """All that is kept of a row made with one seed."""

    row: str
    budget: str
    seed: int
    configuration: RowConfig
    """Of the row, with the settings of all its budgets."""
    settings: dict[str, Any]
    """Of the training, defaults included."""
    data: dict[str, Any]
    """Name and statistics of the data."""
    catalogue_hash: str
    split_hash: str
    users: int
    k: int
    points: dict[str, Point]
    """By strategy or weight; the first is the row's own."""
    per_user_sha256: str
    """Of the file of values per user, which holds all points of a model, and the best ones of a reranker."""
    weights: str = ""
    """SHA-256 of the trained weights; empty where nothing is trained, or nobody knows."""
    built_on: dict[str, str] = Field(default_factory=dict)
    """The same of the trained rows that this one builds on, as they were then; empty where nobody knows."""
    training_s: float
    evaluation_s: float
    steps: int | None
    """Of the training."""
    validations: tuple[Validation, ...]
    """Of a tuned model, in the order of their steps."""
    machine: str
    versions: dict[str, str]
    commit: str | None
    """Of the repository, with a + where files had changed; None outside of one."""
    command: str

    @property
    def own(self) -> Point:
        """What stands in the table."""
        return next(iter(self.points.values()))


def point_of(table: EvaluationTable, weight: float | None = None, goals: Sequence[str] = ()) -> Point:
    """Summarise an evaluation."""
    return Point(
        means=_defined(table.summary()),
        standard_errors=_defined(table.standard_errors()),
        weight=weight,
        goals=tuple(goals),
    )


def per_user_file(tables: Mapping[str, EvaluationTable]) -> bytes:
    """Pack the values per user as Parquet: one row a user and point, float32, and the rank of the held-out item."""
    frames = []
    for point, table in tables.items():
        values = {name: values.astype(np.float32) for name, values in table.per_user.items() if _is_stored(name)}
        ranks = table.ranks.astype(np.uint16)
        frames.append(pd.DataFrame({"point": point, "user": table.user_ids, "rank": ranks, **values}))
    packed = io.BytesIO()
    pd.concat(frames).to_parquet(packed, index=False, compression="zstd")
    return packed.getvalue()


def write_result(file: Path, result: Result, per_user: bytes) -> None:
    """Write both files, the facts last: what was interrupted is no result.

    Args:
        file: of the facts, `.json`; the values per user go beside it.
        result: whose `per_user_sha256` is `sha256_of(per_user)`.
        per_user: from `per_user_file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    write_atomically(file.with_suffix(".parquet"), per_user)
    write_atomically(file, result.model_dump_json(indent=1).encode() + b"\n")


def read_result(file: Path, command: str) -> Result | None:
    """Read the facts of a row; None where it has no result.

    Args:
        file: of the facts.
        command: makes the result again, for the error.

    Raises:
        InputError: the result is half-written or damaged.
    """
    if not file.exists():
        return None
    try:
        result = Result.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{file} is no whole result ({_place(first['loc'])}{first['msg']}); run `{command}`") from None
    values = file.with_suffix(".parquet")
    if not values.exists() or sha256_of(values.read_bytes()) != result.per_user_sha256:
        state = "belongs to another result" if values.exists() else "is missing"
        raise InputError(f"{file} is half a result: {values.name} {state}; run `{command}`")
    return result


def read_tables(file: Path, result: Result, name: str) -> dict[str, EvaluationTable]:
    """Read the values per user of a result, by point; all tables have one name."""
    frame = pd.read_parquet(file.with_suffix(".parquet"))
    tables = {}
    for point, rows in frame.groupby("point", sort=False):
        ranks = rows["rank"].to_numpy().astype(np.int64)
        per_user = {
            "Recall@1": (ranks == 1).astype(np.float64),
            f"Recall@{result.k}": (ranks > 0).astype(np.float64),
            f"NDCG@{result.k}": ndcg_of_ranks(ranks, result.k),
            **{metric: rows[metric].to_numpy().astype(np.float64) for metric in rows.columns if _is_stored(metric)},
        }
        means = result.points[str(point)].means
        tables[str(point)] = EvaluationTable(
            name=name,
            k=result.k,
            split_hash=result.split_hash,
            user_ids=text_array(rows["user"]),
            per_user=per_user,
            ranks=ranks,
            overall={metric: means[metric] for metric in means if metric not in per_user},
            n_invalid=0,
        )
    return tables


def sha256_of(data: bytes) -> str:
    """Return the digest that facts name a file by."""
    return hashlib.sha256(data).hexdigest()


def _is_stored(metric: str) -> bool:
    return metric.partition("@")[0] in STORED


def _defined(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _place(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""
