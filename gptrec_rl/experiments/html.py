"""A study's evidence as one self-contained HTML file, `report.html`: no script, no network, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.notes import making, notes
from gptrec_rl.experiments.table import NOT_RUN, cells_of, header_of, title_of
from gptrec_rl.experiments.text import tables
from gptrec_rl.files import write_atomically
from gptrec_rl.reporting.grids import Grid


def write_page(path: Path, evidence: Evidence, pictures: Mapping[str, Path]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        evidence: of the study.
        pictures: PNGs by title.
    """
    templates = Environment(loader=PackageLoader("gptrec_rl.experiments", "."), autoescape=True)
    page = templates.get_template("report.html").render(
        title=title_of(evidence),
        data=_data(evidence) if evidence.run else None,
        header=header_of(evidence),
        lines=cells_of(evidence),
        not_run=NOT_RUN,
        notes=notes(evidence),
        pictures=[(title, base64.b64encode(each.read_bytes()).decode()) for title, each in pictures.items()],
        tables=tables(evidence),
        making=making(evidence),
    )
    write_atomically(path, page)


def _data(evidence: Evidence) -> Grid:
    """Return the data's statistics, the columns of the paper's Table 2."""
    data = evidence.run[0].results[0].data
    shown = [
        f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        for value in data.values()
    ]
    return Grid([name.replace("_", " ") for name in data], [shown])
