"""Result documents: Markdown in which every section is written by the command that measured it."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from gptrec_rl.files import write_atomically
from gptrec_rl.reporting.tables import METRIC_NAMES, Row, markdown_table


@dataclass(frozen=True)
class Section:
    """What one command measured.

    Attributes:
        title: heading; a document has one section of a title.
        command: as typed.
        seconds: how long it took on this machine; None where the section says itself what was measured on which.
        rows: the models measured.
        metric_names: columns of the table.
        notes: a paragraph each: steps, lists, whatever else is worth knowing.
        figures: pictures by title, as paths relative to the document.
    """

    title: str
    command: str
    seconds: float | None
    rows: Sequence[Row] = ()
    metric_names: Sequence[str] = METRIC_NAMES
    notes: Sequence[str] = ()
    figures: Sequence[tuple[str, str]] = ()

    def markdown(self) -> str:
        """Return the section with heading, command, time, this machine, table with standard errors, and notes."""
        parts = [
            f"## {self.title}",
            f"```sh\n{self.command}\n```",
            *([] if self.seconds is None else [f"{duration(self.seconds)} on {machine_description()}."]),
            *([markdown_table(self.rows, self.metric_names, with_errors=True)] if self.rows else []),
            *self.notes,
            *(f"![{title}]({place})" for title, place in self.figures),
        ]
        return "\n\n".join(parts) + "\n"


def write_section(path: Path, document_title: str, section: Section) -> None:
    """Put a section into a document: in the place of the one with its title, else at the end.

    Args:
        path: of the document; it is made if it isn't there, and replaced only when complete.
        document_title: heading of a new document.
        section: what to write.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {document_title}\n"
    head, *bodies = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = {body.partition("\n")[0]: body for body in bodies}
    sections[f"## {section.title}"] = section.markdown()
    write_atomically(path, "\n\n".join(part.strip() for part in [head, *sections.values()]) + "\n")


def duration(seconds: float) -> str:
    """Write a duration as people say it: `48 s`, `3 min 20 s`, `1 h 2 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def machine_description() -> str:
    """Describe what this process runs on: processor and its widest instructions for matrix products, cores it may use,
    memory, system, Python; no names, no paths.
    """
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()}, Python {platform.python_version()}"
    information = Path("/proc/cpuinfo")
    processor = _processor(information.read_text(encoding="utf-8") if information.exists() else "")
    return f"{processor}, {cores} cores, {memory:.0f} GiB of memory, {system}"


def _processor(information: str) -> str:
    """Name the processor, from what Linux says of it if anything."""
    model = re.search(r"^model name\s*:\s*(.+)$", information, re.MULTILINE)
    name = model[1] if model else platform.processor() or platform.machine()
    flags = re.search(r"^flags\s*:\s*(.+)$", information, re.MULTILINE)
    can = flags[1].split() if flags else []
    widest = next((said for flag, said in _INSTRUCTIONS.items() if flag in can), None)
    return f"{name} ({widest})" if widest else name


_INSTRUCTIONS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
"""What processors of the same name may differ in, the widest first."""
