"""Result documents that commands write section by section."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from gptrec_rl.reporting.documents import Section, _processor, duration, machine_description, write_section
from gptrec_rl.reporting.tables import Row


def section(title: str, command: str = "gptrec-rl evaluate") -> Section:
    rows = [Row("teacher", {"NDCG@10": 0.1637}, {"NDCG@10": 0.0035})]
    return Section(title, command, 48.2, rows, ("NDCG@10",), ["A note."], [("the path", "path.png")])


def test_a_section_holds_command_time_machine_table_notes_and_figures() -> None:
    lines = section("Teacher").markdown().splitlines()
    assert lines[0] == "## Teacher"
    assert "gptrec-rl evaluate" in lines
    assert f"48 s on {machine_description()}." in lines
    assert "| teacher | 0.1637 ± 0.0035 |" in lines
    assert "A note." in lines
    assert lines[-1] == "![the path](path.png)"


def test_sections_are_added_in_order_and_replaced_in_place(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "results.md"
    write_section(path, "MovieLens-1M", section("Teacher"))
    write_section(path, "MovieLens-1M", section("Student"))
    write_section(path, "Not used again", section("Teacher", "gptrec-rl evaluate --again"))
    text = path.read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# MovieLens-1M", "## Teacher", "## Student"]
    assert text.index("--again") < text.index("## Student")
    assert text.count("gptrec-rl evaluate") == 2
    assert [child.name for child in path.parent.iterdir()] == ["results.md"]


def test_what_people_wrote_above_the_sections_stays(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Results\n\nWritten by the commands.\n")
    write_section(path, "Results", section("Teacher"))
    write_section(path, "Results", section("Teacher"))
    assert path.read_text().startswith("# Results\n\nWritten by the commands.\n\n## Teacher\n")
    assert path.read_text().count("## Teacher") == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (1248, "20 min 48 s"), (3720, "1 h 2 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("fma avx2", "A B (AVX2)"),
        ("avx2 avx512f", "A B (AVX-512)"),
        ("avx512_bf16 avx512f avx2", "A B (AVX-512 with bf16)"),
        ("avx2 avx512f avx512_bf16 amx_bf16", "A B (AMX)"),
        ("sse2 avx2_or_so", "A B"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_instructions(flags: str, said: str) -> None:
    assert _processor(f"processor\t: 0\nmodel name\t: A B\nflags\t\t: fpu {flags}\nbugs\t\t: none\n") == said


def test_the_machine_is_described() -> None:
    description = machine_description()
    assert "cores" in description
    assert "GiB of memory" in description
    assert platform.python_version() in description
