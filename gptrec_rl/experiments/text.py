"""A study's evidence as one text: for the terminal, as Markdown, and as sections of a result document."""

from __future__ import annotations

import os
from pathlib import Path

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.notes import beyond, contest_grid, differences, making, next_k_cost, notes, winner
from gptrec_rl.experiments.table import paper_table, title_of
from gptrec_rl.experiments.trade_offs import contests
from gptrec_rl.reporting.documents import Section, write_section
from gptrec_rl.reporting.grids import Grid

FIGURES = "figures"
"""Folder of a study's figures, in that of its results."""


def text(evidence: Evidence) -> str:
    """Return all tables for the terminal."""
    parts = [title_of(evidence), paper_table(evidence, "text"), "\n".join(notes(evidence))]
    for title, sentence, grid in tables(evidence):
        parts += [f"{title}. {sentence}".rstrip(), grid.text()]
    return "\n\n".join(parts)


def markdown(evidence: Evidence) -> str:
    """Return all tables as Markdown, and how each row was made."""
    return "\n\n".join([f"## {title_of(evidence)}", *_paragraphs(evidence)])


def write_report(document: Path, evidence: Evidence, command: str) -> None:
    """Write a study's section of a result document, with those of its figures that were drawn."""
    pictures = sorted((evidence.study.folder / FIGURES).glob("*.png"))
    figures = [(picture.stem, os.path.relpath(picture, document.parent)) for picture in pictures]
    section = Section(title_of(evidence), command, None, notes=_paragraphs(evidence), figures=figures)
    write_section(document, "Results", section)


def tables(evidence: Evidence) -> list[tuple[str, str, Grid]]:
    """Return title, sentence and table of what stands below Table 3."""
    k = evidence.study.experiments.dataset.k
    found = [
        (f"Who wins on {each.goal}: {each.tuned} and its rivals", winner(each), contest_grid(each, k))
        for each in contests(evidence)
    ]
    paired = "Intervals are of the paired differences between users. Students of rerankers are left out."
    found.append(("What Next-K costs: NDCG of both strategies from one checkpoint", paired, next_k_cost(evidence)))
    found.append(("Beyond the paper's metrics", "", beyond(evidence)))
    if evidence.baseline is not None:
        found.append((f"Differences to {evidence.baseline.row.name}", "", differences(evidence)))
    return [(title, sentence, grid) for title, sentence, grid in found if grid.lines]


def _paragraphs(evidence: Evidence) -> list[str]:
    parts = [paper_table(evidence, "markdown"), *(note.replace("*", "\\*") for note in notes(evidence))]
    for title, sentence, grid in [*tables(evidence), ("How each row was made", "", making(evidence))]:
        parts += [f"### {title}", *([sentence] if sentence else []), grid.markdown()]
    return parts
