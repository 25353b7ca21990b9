"""What `make run` shows: the whole path with real processes, here for seconds rather than minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-c", "from gptrec_rl.cli import main; main()", "demo")
SMALL = ("--users", "150", "--items", "160", "--pretrain-minutes", "0.05", "--tune-minutes", "0.05")


@pytest.mark.integration
def test_demo_ends_with_a_table_and_a_picture(tmp_path: Path) -> None:
    run_dir = tmp_path / "demo"
    done = subprocess.run(
        [*COMMAND, "--run-dir", str(run_dir), *SMALL], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(Markov chain|student|tuned: [a-z ]+?) +((?: *\d\.\d{4}){3})$", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["Markov chain", "student", "tuned: more diverse", "tuned: less popular"]
    picture = Path(re.search(r"^Picture: (.+)$", done.stdout, re.MULTILINE)[1])  # type: ignore[index]
    assert picture.read_bytes().startswith(b"\x89PNG")
    for name in ("more-diverse", "less-popular"):
        assert (run_dir / name / "store" / "BEST").exists()
