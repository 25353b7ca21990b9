"""The readers of everything that comes from Redis or from disk, each with genuine input to mutate.

`make fuzz` and the tests feed them; a reader either accepts its input or raises the errors that it promises.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch

from benchmarks.work import batch_of, rollout
from fuzzing.learner_states import learner_state_readers
from gptrec_rl.config import ModelConfig, TuneConfig
from gptrec_rl.config_files import write_config
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.recorder import DRAWN, FOLDER, HEADER, LENGTH, PUBLISHED, length_checksum
from gptrec_rl.fleet.recording import Recording
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.network import CONFIG_FILE, WEIGHTS_FILE
from gptrec_rl.runs.inputs import INPUTS, recorded_inputs
from gptrec_rl.store.checkpoints import BEST, HOLDS, LATEST, CheckpointStore
from gptrec_rl.store.files import open_storage
from gptrec_rl.store.manifest import CheckpointError, Origin, parse_manifest, seal, verify
from gptrec_rl.telemetry.ending import END, read_end
from gptrec_rl.telemetry.folders import read_tuning_config
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MetricRecord, decode_record, encode_record, parse_record
from gptrec_rl.transport.messages import SCHEMA_VERSION, MessageError, decode, encode, pack

HEADER_SIZE = 10


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: what it reads.
        seeds: genuine input.
        read: the reader; what it returns doesn't matter.
        refusals: the errors that it promises.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]

    def accepts(self, data: bytes) -> bool:
        """Feed it; False is a refusal, and any error that it doesn't promise comes through."""
        try:
            self.read(data)
        except self.refusals:
            return False
        return True


def names() -> list[str]:
    """Return the names of all targets."""
    with tempfile.TemporaryDirectory() as folder:
        return [target.name for target in targets(Path(folder))]


def targets(folder: Path) -> list[Target]:
    """Make all targets; those that read files write them into this folder."""
    batches = [
        batch_of(rollout(Histories.of(histories), 2, n_items=50, k=3)) for histories in ([[5, 6, 7], [], [9]], [[1]])
    ]
    messages = tuple(encode(batch) for batch in batches)
    record = MetricRecord("optimiser", 0, 1, 20, 1.7e9, {"reward/mean": 0.5, "val/ndcg@10": float("nan")})
    policy = _policy_files()
    frames = _recorded_messages(messages[0])
    recording, read_recording = b"".join(map(_framed, frames)), _recording_reader(folder)
    return [
        Target("messages", messages, decode, (MessageError,)),
        Target(
            "messages with a true checksum", _payloads(messages), lambda data: decode(_sealed(data)), (MessageError,)
        ),
        Target(
            "metric records with a true checksum",
            _payloads((encode_record(record),)),
            lambda data: decode_record(_sealed(data)),
            (MessageError,),
        ),
        Target("lines of metrics.jsonl", (json.dumps(asdict(record)).encode(),), parse_record, (MessageError,)),
        Target("manifests", (_manifest(policy),), _manifest_reader(policy), (CheckpointError,)),
        Target(
            "pointers",
            (b'{"folder": "policies/v00000001", "score": 0.5}',),
            _pointer_reader(policy, f"memory://{folder.name}"),
            (),
        ),
        Target(
            "holds",
            (b'{"folder": "policies/v00000001", "until": 1e12}',),
            _hold_reader(f"memory://{folder.name}-held"),
            (),
        ),
        Target("weights", (policy[WEIGHTS_FILE],), lambda data: _load(policy, WEIGHTS_FILE, data), (InputError,)),
        Target(
            "a model's config.json",
            (policy[CONFIG_FILE],),
            lambda data: _load(policy, CONFIG_FILE, data),
            (InputError,),
        ),
        Target("config.toml", (_config(folder),), _config_reader(folder), (InputError,)),
        Target("inputs.json", (b'{"log": "0", "teacher": "markov"}',), _inputs_reader(folder), (InputError,)),
        Target("end.json", (b'{"how": "failed", "message": "a\\nb", "time": 1.5}',), _end_reader(folder), ()),
        Target("metrics.cursor", (_place(folder),), _place_reader(folder), (InputError,)),
        Target("recordings", (recording,), read_recording, (InputError,)),
        Target(
            "headers of recordings with a true checksum",
            _payloads(frames[:1]),
            lambda data: read_recording(_framed(_sealed(data))),
            (InputError,),
        ),
        Target(
            "draws of recordings with a true checksum",
            _payloads(frames[1:]),
            lambda data: read_recording(_framed(frames[0]) + _framed(_sealed(data))),
            (InputError,),
        ),
        *(
            Target(f"a learner state's {name}", (seed,), read, (InputError,))
            for name, seed, read in learner_state_readers(f"memory://{folder.name}-states")
        ),
    ]


def _payloads(messages: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(message[HEADER_SIZE:] for message in messages)


def _sealed(payload: bytes) -> bytes:
    """Put a payload behind the header of a message, whose checksum would keep nearly all mutations out."""
    return struct.pack("<4sHI", b"GPRL", SCHEMA_VERSION, zlib.crc32(payload)) + payload


def _policy_files() -> dict[str, bytes]:
    with torch.random.fork_rng():
        sizes = ModelConfig(n_layers=1, n_heads=1, width=2, history_length=2, slate_length=2)
        return GPTRec.create(3, sizes).to_files()


def _manifest(files: dict[str, bytes]) -> bytes:
    return seal("policies/v00000001", files, Origin(1, 1, 0, "c", "s", {"goal": "ndcg=1"})).manifest()


def _manifest_reader(files: dict[str, bytes]) -> Callable[[bytes], object]:
    def file(name: str, _: int) -> bytes:
        assert Path(name).name == name, f"a manifest made its reader ask for {name!r}"
        return files.get(name, b"")

    return lambda data: verify(parse_manifest("policies/v00000001", data), file)


def _pointer_reader(files: dict[str, bytes], root: str) -> Callable[[bytes], None]:
    store, storage = CheckpointStore(root), open_storage(root)
    store.publish_policy(files, Origin(token=1, version=1, step=0, catalogue_hash="c", split_hash="s", config={}))

    def read(data: bytes) -> None:
        storage.replace(LATEST, data)
        storage.replace(BEST, data)
        policy, best = store.latest_policy(), store.best()
        assert policy is not None, "a damaged pointer hid the policy"
        assert best is None or best[0] == policy, "a pointer led out of the store"

    return read


def _hold_reader(root: str) -> Callable[[bytes], None]:
    store, storage, versions = CheckpointStore(root, keep_policies=1), open_storage(root), count(1)

    def read(data: bytes) -> None:
        storage.replace(f"{HOLDS}/validator", data)
        newest = store.publish_policy({}, Origin(1, next(versions), 0, "c", "s", {}))
        assert store.policies()[-1] == newest, "a hold hid the policy"

    return read


def _load(files: dict[str, bytes], name: str, data: bytes) -> GPTRec:
    return GPTRec.from_files({**files, name: data})


def _config(folder: Path) -> bytes:
    write_config(TuneConfig(), folder / "config.toml")
    return (folder / "config.toml").read_bytes()


def _config_reader(folder: Path) -> Callable[[bytes], object]:
    path = folder / "config.toml"

    def read(data: bytes) -> TuneConfig:
        path.write_bytes(data)
        return read_tuning_config(folder)

    return read


def _inputs_reader(folder: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> dict[str, str]:
        (folder / INPUTS).write_bytes(data)
        return recorded_inputs(folder)

    return read


def _end_reader(folder: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> str:
        (folder / END).write_bytes(data)
        return str(read_end(folder))

    return read


def _place(folder: Path) -> bytes:
    RunRecords(folder)
    return (folder / "metrics.cursor").read_bytes()


def _place_reader(folder: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> RunRecords:
        (folder / "metrics.cursor").write_bytes(data)
        return RunRecords(folder)

    return read


def _recorded_messages(batch: bytes) -> tuple[bytes, ...]:
    config = TuneConfig().model_dump(mode="json")
    origin = {"catalogue_hash": "c", "split_hash": "s", "student": "0", "device": "cpu", "threads": 1, "torch": "2"}
    bodies = (
        {"kind": HEADER, "token": 1, "step": 0, "config": config, **origin},
        {"kind": DRAWN, "step": 1, "generator_id": 0, "sequence_number": 0, "batch": batch},
        {"kind": PUBLISHED, "step": 1, "sha256": "0"},
    )
    return tuple(map(pack, bodies))


def _framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message), length_checksum(len(message))) + message


def _recording_reader(folder: Path) -> Callable[[bytes], object]:
    path = folder / FOLDER / "00000001.draws"
    path.parent.mkdir(exist_ok=True)

    def read(data: bytes) -> list[object]:
        path.write_bytes(data)
        return list(Recording.open(folder).draws())

    return read
