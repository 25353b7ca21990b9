"""What writing a list item by item costs in accuracy: Top-K against Next-K from one checkpoint (Figure 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gptrec_rl.evaluation import EvaluationTable
from gptrec_rl.experiments.evidence import Evidence, Line
from gptrec_rl.metrics import ndcg_of_ranks
from gptrec_rl.significance import Comparison, compare


@dataclass(frozen=True)
class Gap:
    """One model at one cutoff.

    Attributes:
        model: its name.
        k: the cutoff.
        top_k: mean NDCG@k of its Top-K lists.
        next_k: of its Next-K lists.
        comparison: the second less the first.
        published: the published change as a share of Top-K's; None where nothing was.
    """

    model: str
    k: int
    top_k: float
    next_k: float
    comparison: Comparison
    published: float | None


def asked_both_ways(evidence: Evidence) -> list[Line]:
    """Return the models that have made lists by both strategies.

    Students of rerankers are left out: the first place, which is all that Top-K asks about, knows nothing of what a
    reranker does below it.
    """
    return [
        line
        for line in evidence.run
        if set(line.made[0].tables) == {"top-k", "next-k"} and line.results[0].settings.get("rerank") is None
    ]


def gaps(evidence: Evidence) -> Iterator[Gap]:
    """Yield each model's gap at the length of the lists, and at the cutoffs that one was published at."""
    for line in asked_both_ways(evidence):
        published = line.published.next_k if line.published is not None else {}
        longest = evidence.study.experiments.dataset.k
        for k in sorted({longest, *(k for k in published if k <= longest)}):
            top_k, next_k = (_at(line.made[0].tables[strategy], k) for strategy in ("top-k", "next-k"))
            (comparison,) = compare([next_k], top_k, [f"NDCG@{k}"])
            means = [table.summary()[f"NDCG@{k}"] for table in (top_k, next_k)]
            yield Gap(line.row.name, k, means[0], means[1], comparison, published.get(k))


def _at(table: EvaluationTable, k: int) -> EvaluationTable:
    """Return NDCG at another cutoff."""
    return replace(table, per_user={f"NDCG@{k}": ndcg_of_ranks(table.ranks, k)}, overall={})
