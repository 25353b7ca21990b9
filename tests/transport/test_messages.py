"""Rollout messages: they survive a round trip, and nothing else than a message is taken for one."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gptrec_rl.data import Histories
from gptrec_rl.transport.messages import (
    MAX_ERROR_LENGTH,
    MAX_MESSAGE_BYTES,
    MessageError,
    RolloutBatch,
    decode,
    encode,
    largest_message,
    pack,
    unpack,
)

Maker = Callable[..., RolloutBatch]


@st.composite
def batches(draw: st.DrawFn) -> RolloutBatch:
    n_histories, n_lists, k = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)))
    shape = (n_histories, n_lists, k)
    items = st.integers(1, 2**31 - 1)
    finite = st.floats(-1e6, 1e6, width=32)
    history = st.lists(items, max_size=6)
    return RolloutBatch(
        run_id=draw(st.text(max_size=20)),
        generator_id=draw(st.integers(0, 2**53)),
        sequence_number=draw(st.integers(0, 2**53)),
        token=draw(st.integers(0, 2**53)),
        policy_version=draw(st.integers(0, 2**53)),
        learner_step=draw(st.integers(0, 2**53)),
        temperature=draw(st.floats(0.1, 10)),
        created_at=draw(st.floats(0, 4e9)),
        catalogue_hash=draw(st.text(max_size=20)),
        split_hash=draw(st.text(max_size=20)),
        histories=Histories.of(draw(st.lists(history, min_size=n_histories, max_size=n_histories))),
        ground_truth=draw(npst.arrays(np.int64, n_histories, elements=items)),
        slates=draw(npst.arrays(np.int32, shape, elements=items)),
        log_probs=draw(npst.arrays(np.float32, shape, elements=st.floats(-1e6, 0, width=32))),
        rewards={
            name: draw(npst.arrays(np.float32, shape, elements=finite))
            for name in draw(st.sets(st.text(max_size=10), max_size=3))
        },
    )


def assert_same(one: RolloutBatch, other: RolloutBatch) -> None:
    for field in dataclasses.fields(RolloutBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Histories):
            np.testing.assert_array_equal(a.values, b.values, strict=True)
            np.testing.assert_array_equal(a.offsets, b.offsets, strict=True)
        elif isinstance(a, dict):
            assert list(a) == list(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], strict=True)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert a == b
            assert type(a) is type(b)


@given(batches())
def test_messages_survive_a_round_trip(batch: RolloutBatch) -> None:
    assert_same(decode(encode(batch)), batch)


@given(st.data())
def test_a_message_with_any_byte_changed_is_refused(make_batch: Maker, data: st.DataObject) -> None:
    message = bytearray(encode(make_batch()))
    message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MessageError):
        decode(bytes(message))


@given(st.data())
def test_a_message_cut_off_anywhere_is_refused(make_batch: Maker, data: st.DataObject) -> None:
    message = encode(make_batch())
    with pytest.raises(MessageError):
        decode(message[: data.draw(st.integers(0, len(message) - 1))])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(MessageError):
        decode(garbage)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data(), value=json_like)
def test_a_well_packed_message_with_any_field_replaced_raises_nothing_but_message_error(
    make_batch: Maker, data: st.DataObject, value: object
) -> None:
    body = unpack(encode(make_batch()))
    body[data.draw(st.sampled_from(sorted(body)))] = value
    with contextlib.suppress(MessageError):
        decode(pack(body))


@pytest.mark.parametrize("shape", [[3, 2, 5], [2**62, 2**62, 0, 1], [-1, -2, 12], [24.0], [True, 24, 1], "324"])
def test_an_array_whose_shape_is_not_that_of_its_bytes_is_refused(make_batch: Maker, shape: object) -> None:
    body = unpack(encode(make_batch()))
    body["slates"][1] = shape
    with pytest.raises(MessageError, match="slates"):
        decode(pack(body))


def test_a_huge_shape_takes_no_memory(make_batch: Maker) -> None:
    body = unpack(encode(make_batch()))
    body["log_probs"] = ["<f4", [2**40, 2**10, 4], b""]
    with pytest.raises(MessageError, match="0 bytes"):
        decode(pack(body))


@pytest.mark.parametrize("dtype", ["|O", "<f8", "<i8", "<U4", ""])
def test_an_array_of_another_dtype_is_refused(make_batch: Maker, dtype: str) -> None:
    body = unpack(encode(make_batch()))
    body["slates"][0] = dtype
    with pytest.raises(MessageError, match="slates is not an array of dtype <i4"):
        decode(pack(body))


def sealed(payload: bytes) -> bytes:
    return struct.pack("<4sHI", b"GPRL", 1, zlib.crc32(payload)) + payload


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        pytest.param(b"\xdc\x02\x00" + b"\x80" * 512, "not a map", id="as many containers as may be"),
        pytest.param(b"\x91" * 600 + b"\xdc\x02\x00" + b"\x93\x80\x80\x80" * 512, "more than 2048", id="containers"),
        pytest.param(b"\x91" * 2000, "StackError", id="depth"),
        pytest.param(b"\xdd\x00\x00\x02\x01" + b"\xc0" * 513, "513 exceeds", id="length of a list"),
        pytest.param(b"\xdf\x00\x00\x02\x01", "513 exceeds", id="length of a map"),
        pytest.param(b"\xd6\xff" + bytes(4), "exceeds", id="extension types"),
    ],
)
def test_what_a_message_may_hold_is_bounded(payload: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        unpack(sealed(payload))


def test_a_message_that_is_longer_than_its_reader_allows_is_refused(make_batch: Maker) -> None:
    message = encode(make_batch())
    unpack(message, at_most=len(message))
    with pytest.raises(MessageError, match=f"10 to {len(message) - 1} are allowed"):
        unpack(message, at_most=len(message) - 1)


def test_the_largest_message_of_a_shape_is_known(make_batch: Maker) -> None:
    batch = make_batch(
        histories=Histories.of([[1] * 500] * 3),
        slates=np.ones((3, 40, 10), np.int32),
        log_probs=np.zeros((3, 40, 10), np.float32),
        rewards=dict.fromkeys(["ndcg", "ild"], np.zeros((3, 40, 10), np.float32)),
    )
    largest = largest_message(3, 40, 10, longest_history=500, n_rewards=2)
    assert largest < len(encode(batch)) < largest + 2000


def test_a_message_that_nobody_would_read_is_not_made() -> None:
    with pytest.raises(MessageError, match="make smaller batches"):
        pack({"values": bytes(MAX_MESSAGE_BYTES)})


def test_missing_and_further_fields_are_refused(make_batch: Maker) -> None:
    body = unpack(encode(make_batch()))
    with pytest.raises(MessageError, match="has the fields"):
        decode(pack(body | {"further": 1}))
    del body["token"]
    with pytest.raises(MessageError, match="has the fields"):
        decode(pack(body))


def test_a_message_of_another_schema_version_says_so(make_batch: Maker) -> None:
    message = bytearray(encode(make_batch()))
    message[4] = 9
    with pytest.raises(MessageError, match="schema version 9, not 1"):
        decode(bytes(message))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"generator_id": -1}, "generator_id"),
        ({"token": True}, "token"),
        ({"learner_step": 2**53 + 1}, "learner_step"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"run_id": "x" * 129}, "run_id"),
        ({"ground_truth": np.array([1, 2], np.int64)}, "ground_truth"),
        ({"ground_truth": np.array([1, 0, 2], np.int64)}, "ground_truth has an item number below 1"),
        ({"slates": np.zeros((3, 2, 4), np.int32)}, "slates has an item number below 1"),
        ({"slates": np.ones((3, 2, 4), np.int64)}, "slates has dtype int64"),
        ({"slates": np.ones((3, 2, 5), np.int32)}, "log_probs has the shape"),
        ({"slates": np.ones((0, 2, 4), np.int32)}, "are none; a batch has one or more"),
        ({"slates": np.ones((3, 4), np.int32)}, "not histories x lists x items"),
        ({"log_probs": np.full((3, 2, 4), np.nan, np.float32)}, "not finite"),
        ({"log_probs": np.full((3, 2, 4), 0.1, np.float32)}, "above 0"),
        ({"rewards": {"ild": np.zeros((3, 2), np.float32)}}, "reward ild has the shape"),
        ({"rewards": {"ild": np.full((3, 2, 4), np.inf, np.float32)}}, "reward ild has a value that is not finite"),
        ({"rewards": {"ild": np.zeros((3, 2, 4))}}, "reward ild has dtype float64"),
        ({"histories": Histories(np.ones(4, np.int32), np.array([0, 3, 2, 4]))}, "offsets"),
        ({"histories": Histories(np.ones(4, np.int32), np.array([1, 1, 2, 4]))}, "offsets"),
        ({"histories": Histories(np.ones(4, np.int32), np.array([0, 1, 2, 3]))}, "offsets"),
        ({"histories": Histories(np.zeros(4, np.int32), np.array([0, 1, 2, 4]))}, "values has an item number below 1"),
    ],
)
def test_an_inconsistent_batch_cannot_be_made(make_batch: Maker, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        make_batch(**changes)


def test_decoded_arrays_can_be_written_to(make_batch: Maker) -> None:
    assert decode(encode(make_batch())).slates.flags.writeable


@pytest.mark.parametrize(
    "body",
    [{f"{n}{'x' * 100_000}": 1 for n in range(20)}, {"token": "9" * 2_000_000}],
    ids=["fields", "value"],
)
def test_what_is_said_of_a_message_is_short_whatever_it_holds(make_batch: Maker, body: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as refused:
        decode(pack({**unpack(encode(make_batch())), **body}))
    assert len(str(refused.value)) <= MAX_ERROR_LENGTH


def test_a_text_that_is_no_utf_8_is_refused_without_repeating_it() -> None:
    with pytest.raises(MessageError, match="can't decode byte 0xff") as refused:
        decode(sealed(b"\x81\xa9secret..\xff\x01"))
    assert "secret" not in str(refused.value)
