"""The bounded form of `make fuzz`: mutated input is read or refused, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzing.targets import Target, names, targets

NASTY = (
    b"",
    b"[" * 3000,
    b"\x91" * 3000,
    b"1e999",
    b"-1",
    b"NaN",
    b"null",
    b"9" * 5000,
    b"../",
    b"\xff\xff\xff\xff",
    b"\0" * 8,
)


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("targets"))}


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Draw a seed and replace a few pieces of it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        data[start:end] = draw(st.sampled_from(NASTY) | st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("name", names())
def test_genuine_input_is_accepted(by_name: dict[str, Target], name: str) -> None:
    target = by_name[name]
    assert all(target.accepts(seed) for seed in target.seeds)


@pytest.mark.parametrize("name", names())
@settings(max_examples=40)
@given(data=st.data())
def test_mutated_input_is_read_or_refused(by_name: dict[str, Target], name: str, data: st.DataObject) -> None:
    target = by_name[name]
    target.accepts(data.draw(mutated(target.seeds)))


def test_an_error_that_a_reader_does_not_promise_comes_through() -> None:
    target = Target("numbers", (b"1",), int, (TypeError,))
    with pytest.raises(ValueError, match="invalid literal"):
        target.accepts(b"x")
