"""Identities, both kinds: never given twice."""

from __future__ import annotations

import pytest

from gptrec_rl.transport.ids import IdAllocator, Identity, MemoryIds, RedisIds


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def ids(request: pytest.FixtureRequest) -> IdAllocator:
    return MemoryIds() if request.param == "memory" else RedisIds(request.getfixturevalue("client"), "run")


def test_ids_are_never_given_twice_and_starts_are_counted_by_name(ids: IdAllocator) -> None:
    names = ["generator-0", "generator-1", "generator-0", "validator", "generator-0"]
    assert [ids.allocate(name) for name in names] == [
        Identity(1, 1),
        Identity(2, 1),
        Identity(3, 2),
        Identity(4, 1),
        Identity(5, 3),
    ]
