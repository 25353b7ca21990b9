"""What all tests share: the data beside the checkout, one thread, reproducible properties."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read when torch and numpy are first imported, here and in child processes; torch itself stays unimported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of public data sets beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets in ../shared/data, beside the checkout")
    return folder
