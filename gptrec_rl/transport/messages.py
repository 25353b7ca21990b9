"""What crosses the recommendation cache: one rollout batch as one self-checking msgpack message.

Generators encode, the optimiser decodes. A message is a magic, a schema version, a CRC-32 and a msgpack map whose
arrays are (dtype, shape, bytes). A decoder trusts nothing: every length is checked before memory is taken for it.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgpack
import numpy as np

from gptrec_rl.data import Histories
from gptrec_rl.learning.rollout import DTYPES, MAX_NAME_LENGTH, REWARD_DTYPE, Rollout
from gptrec_rl.store.manifest import MAX_INT

SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 64 * 2**20
MAX_MAP_LENGTH = 512
MAX_CONTAINERS = 2048
"""Lists and maps in a message: without a bound each of its bytes could become an object of a hundred."""
MAX_ERROR_LENGTH = 1000
"""Characters that are said of a message, which may hold anything and many of it."""

_HEADER = struct.Struct("<4sHI")  # magic, schema version, CRC-32 of the rest
_MAGIC = b"GPRL"
_INTS = ("generator_id", "sequence_number", "token", "policy_version", "learner_step")
_NAMES = ("run_id", "catalogue_hash", "split_hash")


class MessageError(ValueError):
    """A message that is malformed, damaged, of another schema version, or inconsistent in itself."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem[:MAX_ERROR_LENGTH])


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(Rollout):
    """A rollout with what transport and fleet need to know of it: whose it is, of which policy and which data.

    A batch that exists is consistent: construction checks it, once.

    Attributes:
        run_id: the run that it belongs to.
        generator_id: who made it; never reused within a run.
        sequence_number: counts the batches of this generator upwards.
        token: fencing token of the optimiser that published the policy.
        policy_version: version of the policy that sampled the lists.
        learner_step: step at which that policy was published.
        created_at: seconds since the epoch.
        catalogue_hash: hash of the catalogue that the item numbers are from.
        split_hash: hash of the split that the histories are from.

    Raises:
        MessageError: names the field and what is wrong with it.
    """

    run_id: str
    generator_id: int
    sequence_number: int
    token: int
    policy_version: int
    learner_step: int
    created_at: float
    catalogue_hash: str
    split_hash: str

    def __post_init__(self) -> None:
        _check_envelope(self)
        try:
            super().__post_init__()
        except ValueError as error:
            raise MessageError(str(error)) from None


def encode(batch: RolloutBatch) -> bytes:
    """Turn a batch into a message."""
    body = {
        field.name: getattr(batch, field.name) for field in fields(batch) if field.name not in ("histories", "rewards")
    }
    body |= {"values": batch.histories.values, "offsets": batch.histories.offsets}
    for name, dtype in DTYPES.items():
        body[name] = _pack_array(body[name], dtype)
    body["rewards"] = {name: _pack_array(array, REWARD_DTYPE) for name, array in batch.rewards.items()}
    return pack(body)


def largest_message(n_histories: int, n_lists: int, k: int, longest_history: int, n_rewards: int) -> int:
    """Return how many bytes a batch of this shape takes at most, but for a few thousand of names and numbers."""
    a_history = 4 * longest_history + 8 + 8  # values, offset, ground truth
    return n_histories * (a_history + n_lists * k * 4 * (2 + n_rewards))  # items, log-probabilities, rewards


def decode(data: bytes) -> RolloutBatch:
    """Turn a message back into a batch; its arrays own their memory.

    Raises:
        MessageError: anything about the message is not as `encode` makes it.
    """
    body = unpack(data)
    expected = {*_INTS, *_NAMES, *DTYPES, "temperature", "created_at", "rewards"}
    if body.keys() != expected:
        raise MessageError(f"message has the fields {sorted(map(str, body))}, not {sorted(expected)}")
    for name, dtype in DTYPES.items():
        body[name] = _unpack_array(name, body[name], dtype)
    if not isinstance(body["rewards"], dict):
        raise MessageError("rewards is not a map")
    body["rewards"] = {
        name: _unpack_array(f"reward {name}", packed, REWARD_DTYPE) for name, packed in body["rewards"].items()
    }
    histories = Histories(body.pop("values"), body.pop("offsets"))
    return RolloutBatch(histories=histories, **body)


def pack(body: Mapping[str, Any]) -> bytes:
    """Put a map of msgpack values behind magic, schema version and checksum.

    Raises:
        MessageError: nobody would read a message this large.
    """
    payload: bytes = msgpack.packb(body)
    if len(payload) + _HEADER.size > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(payload)} bytes; {MAX_MESSAGE_BYTES} are allowed; make smaller batches")
    return _HEADER.pack(_MAGIC, SCHEMA_VERSION, zlib.crc32(payload)) + payload


def unpack(data: bytes, at_most: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """Check magic, schema version, size and checksum, and return the map behind them.

    Args:
        data: the message.
        at_most: bytes that it may have.

    Raises:
        MessageError: one of them is wrong, or what follows is not a msgpack map with text keys.
    """
    if not _HEADER.size <= len(data) <= at_most:
        raise MessageError(f"message of {len(data)} bytes; {_HEADER.size} to {at_most} are allowed")
    magic, version, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise MessageError(f"message starts with {magic!r}, not {_MAGIC!r}")
    if version != SCHEMA_VERSION:
        raise MessageError(f"message has schema version {version}, not {SCHEMA_VERSION}; run one version everywhere")
    payload = memoryview(data)[_HEADER.size :]
    if zlib.crc32(payload) != checksum:
        raise MessageError("message is damaged: its checksum is wrong")
    body = _unpacked(payload)
    if not isinstance(body, dict) or not all(isinstance(name, str) for name in body):
        raise MessageError("message is not a map with text keys")
    return body


def _unpacked(payload: memoryview) -> object:
    n_containers = itertools.count(1)

    def counted(container: object) -> object:
        if next(n_containers) > MAX_CONTAINERS:
            raise MessageError(f"it has more than {MAX_CONTAINERS} lists and maps")
        return container

    try:
        return msgpack.unpackb(  # bounds every other inner length by the size of the payload, and the depth by 1024
            payload,
            max_array_len=MAX_MAP_LENGTH,
            max_map_len=MAX_MAP_LENGTH,
            max_ext_len=0,
            object_hook=counted,
            list_hook=counted,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"message can't be unpacked: {type(error).__name__}: {error}") from None


def _pack_array(array: np.ndarray, dtype: str) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, array.shape, array.astype(dtype, copy=False).tobytes()


def _unpack_array(name: str, packed: object, dtype: str) -> np.ndarray:
    if not (isinstance(packed, list) and len(packed) == 3 and packed[0] == dtype and isinstance(packed[2], bytes)):
        raise MessageError(f"{name} is not an array of dtype {dtype}")
    _, shape, data = packed
    if not (isinstance(shape, list) and len(shape) <= 3 and all(type(n) is int and n >= 0 for n in shape)):
        raise MessageError(f"{name} has the shape {shape!r:.40}")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise MessageError(f"{name} has {len(data)} bytes for the shape {shape}")
    # A copy, because an array over a message's bytes is read-only, which torch warns about.
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MessageError(message)


def _check_envelope(batch: RolloutBatch) -> None:
    for name in _INTS:
        value = getattr(batch, name)
        _require(type(value) is int and 0 <= value <= MAX_INT, f"{name} is {value!r}, not a whole number from 0")
    for name in _NAMES:
        value = getattr(batch, name)
        _require(isinstance(value, str) and len(value) <= MAX_NAME_LENGTH, f"{name} is {value!r:.40}, not a short text")
    is_time = type(batch.created_at) is float and math.isfinite(batch.created_at) and batch.created_at >= 0
    _require(is_time, f"created_at is {batch.created_at!r}, not a time")
