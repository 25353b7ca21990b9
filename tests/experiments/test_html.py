"""The HTML report: one file that loads nothing, with everything in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.figures import draw_figures
from gptrec_rl.experiments.html import write_page

PARTS = (
    "Table 3",
    "By hand, budget cpu",
    "How each row was made",
    "12.35",
    "Who wins on",
    "A &lt;paper&gt;",
    "<th>Weak &amp; small</th>",
    "<u>0.3000</u><sup>*+</sup><small>0.2500 (+20.0%)</small>",
)
VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Checks that tags are closed in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_self_contained(evidence: Evidence, tmp_path: Path) -> None:
    pictures = draw_figures(evidence, tmp_path / "figures")
    write_page(tmp_path / "new" / "page.html", evidence, pictures)
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert page.count("src='data:image/png;base64,") == len(pictures)
    assert not re.search(r"(src|href)=['\"](?!data:)|https?://|<script|<link", page)
    for part in PARTS:
        assert part in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_page_can_be_written_without_any_result(make_evidence, tmp_path: Path) -> None:
    evidence = make_evidence("base", "weak", "student", "tuned", "mmr")
    write_page(tmp_path / "page.html", evidence, {})
    assert "not run" in (tmp_path / "page.html").read_text(encoding="utf-8")
