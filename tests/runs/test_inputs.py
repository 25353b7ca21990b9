from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.runs.inputs import (
    INPUTS,
    file_hash,
    record_inputs,
    recorded_inputs,
    require_same_inputs,
    sources_of_rewards,
    warn_of_changed_sources,
)


def test_a_file_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abc")
    # SHA-256 of "abc", as FIPS 180-2 has it
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") == expected


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    assert recorded_inputs(tmp_path) == {}
    record_inputs(tmp_path, {"log": "a"})
    assert recorded_inputs(tmp_path) == {"log": "a"}


@pytest.mark.parametrize("content", ["", "[1]", '{"log": 1}', "[" * 100_000, "x" * 100_000])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / INPUTS).write_text(content)
    with pytest.raises(InputError, match=r"inputs\.json is damaged"):
        recorded_inputs(tmp_path)


def test_a_difference_is_refused_with_both_and_the_remedy(tmp_path: Path) -> None:
    before, now = 64 * "a", 64 * "b"
    record_inputs(tmp_path, {"log": "same", "teacher": before})
    require_same_inputs(tmp_path, {"log": "same", "teacher": before})
    with pytest.raises(InputError, match=r"with teacher a{12} and can't go on with b{12}: .* in another --run-dir"):
        require_same_inputs(tmp_path, {"log": "same", "teacher": now})


def test_what_was_not_recorded_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_inputs(tmp_path, {"log": "same"})
    require_same_inputs(tmp_path, {"log": "same"})
    assert caplog.text == ""
    require_same_inputs(tmp_path, {"log": "same", "teacher": "markov"})
    assert "doesn't say with which teacher it was begun" in caplog.text


def test_the_module_of_ones_own_reward_is_known_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module, file = ModuleType("mine"), tmp_path / "mine.py"
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "mine", module)
    file.write_text("one")
    sources = sources_of_rewards("ndcg=1,mine:reward=2")
    assert sources == {"module of mine:reward": hashlib.sha256(b"one").hexdigest()}
    record_inputs(tmp_path, sources)
    warn_of_changed_sources(tmp_path, sources)
    assert caplog.text == ""
    file.write_text("two")
    warn_of_changed_sources(tmp_path, sources_of_rewards("ndcg=1,mine:reward=2"))
    assert "module of mine:reward has changed since" in caplog.text
    assert json.loads((tmp_path / INPUTS).read_text()) == sources
