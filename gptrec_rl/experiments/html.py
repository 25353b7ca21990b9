"""A study's evidence as one self-contained HTML file: no script, no network, pictures inside."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.notes import making, notes
from gptrec_rl.experiments.table import paper_table, title_of
from gptrec_rl.experiments.text import tables
from gptrec_rl.reporting.grids import Grid

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #e6e9ed; padding-bottom: .3rem; }
p.below { color: #616e7c; margin-top: .2rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e6e9ed; vertical-align: top; text-align: right; }
thead th { border-bottom: 2px solid #7b8794; white-space: nowrap; }
th { text-align: left; font-weight: 500; }
td small { display: block; color: #7b8794; white-space: nowrap; }
td sup { color: #d1495b; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; }
figcaption { color: #616e7c; }
ul.notes { color: #3e4c59; padding-left: 1.2rem; }
"""


def write_page(path: Path, evidence: Evidence, pictures: Mapping[str, Path]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        evidence: of the study.
        pictures: PNGs by title.
    """
    sections = [_section("Data", _data(evidence).html())] if evidence.run else []
    reading = "".join(f"<li>{escape(note)}</li>" for note in notes(evidence))
    sections.append(_section("Table 3", f"{paper_table(evidence, 'html')}<ul class='notes'>{reading}</ul>"))
    if pictures:
        sections.append(_section("Figures", "".join(_figure(title, each) for title, each in pictures.items())))
    for title, sentence, grid in tables(evidence):
        sections.append(_section(title, f"<p>{escape(sentence)}</p>{grid.html()}"))
    sections.append(_section("How each row was made", making(evidence).html()))
    title = escape(title_of(evidence))
    page = (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>"
        f"</head><body><h1>{title}</h1><p class='below'>Aligning GPTRec with beyond-accuracy goals: the paper's "
        f"Table 3 and Figures 3 to 5, measured by gptrec-rl.</p>{''.join(sections)}</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)


def _data(evidence: Evidence) -> Grid:
    """Return the data's statistics, the columns of the paper's Table 2."""
    data = evidence.run[0].results[0].data
    shown = [
        f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        for value in data.values()
    ]
    return Grid([name.replace("_", " ") for name in data], [shown])


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><div class='wide'>{content}</div></section>"


def _figure(title: str, picture: Path) -> str:
    inside = base64.b64encode(picture.read_bytes()).decode()
    return (
        f"<figure><img alt='{escape(title)}' src='data:image/png;base64,{inside}'>"
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
