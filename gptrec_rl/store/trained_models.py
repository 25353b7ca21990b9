"""Trained models on disk: a model's own folder, or the run folder of `train`, `pretrain` or `tune` that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptrec_rl.data import Catalogue
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import KINDS, scorer_of
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.network import CONFIG_FILE, Network
from gptrec_rl.recommender import ScoringRecommender
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import MANIFEST, Entry, read_folder, write_folder

STUDENT = "student"
"""The policy in the run folder of `pretrain`, and the one that a run of `tune` started from."""
MODEL = "model"
"""The model in the run folder of `train`."""
STORE = "store"
"""The checkpoint store in the run folder of `tune`."""


def load_model(path: Path, catalogue: Catalogue) -> Network:
    """Load any trained model, as `load_policy` loads a policy.

    Raises:
        InputError: as `load_policy`; or it is of no known kind.
    """
    entry, files = read_model(path)
    _require_catalogue(path, entry, catalogue)
    return _class_of(path, files).from_files(files)


def load_policy(path: Path, catalogue: Catalogue) -> GPTRec:
    """Load a policy; of a tuning run's folder the best one that its validator marked, else the newest.

    Raises:
        InputError: there is no policy at this path, it is damaged (`CheckpointError`), it was trained on another
            catalogue, or it is another model.
    """
    model = load_model(path, catalogue)
    if not isinstance(model, GPTRec):
        raise InputError(
            f"{path} holds a {type(model).__name__}, which writes no lists of its own; teach a GPTRec with "
            f"'gptrec-rl pretrain --teacher {path}' and give that"
        )
    return model


def load_scorer(path: Path, catalogue: Catalogue) -> ScoringRecommender:
    """Load any trained model as one that scores; errors as in `load_model`."""
    return scorer_of(load_model(path, catalogue))


def _class_of(path: Path, files: Mapping[str, bytes]) -> type[Network]:
    try:
        return KINDS[json.loads(files[CONFIG_FILE]).get("recommender", "gptrec")].network
    except (KeyError, ValueError, AttributeError, TypeError):
        raise InputError(
            f"{path} holds no model of a known kind ({', '.join(KINDS)}); train or fetch it again"
        ) from None


def _require_catalogue(path: Path, entry: Entry, catalogue: Catalogue) -> None:
    if entry.catalogue_hash not in (catalogue.hash, catalogue.former_hash):
        raise InputError(
            f"{path} was trained on another catalogue ({entry.catalogue_hash[:12]}, the data has "
            f"{catalogue.hash[:12]}), or by an earlier release on data prepared anew since; give the data file "
            "that it was trained on, or train a model on this one"
        )


def read_model(path: Path) -> tuple[Entry, dict[str, bytes]]:
    """Return the manifest and the files of what `load_model` loads."""
    if (path / STORE).is_dir() and not (path / MANIFEST).exists():
        store = CheckpointStore(str(path / STORE))
        best = store.best()
        if best is not None:
            return best[0], store.read(best[0])
        newest = store.read_latest_policy()
        if newest is None:
            raise InputError(f"the tuning run {path} has not published a policy; let it run, or give another model")
        return newest
    folders = (path / STUDENT, path / MODEL)
    return read_folder(next((folder for folder in folders if (folder / MANIFEST).exists()), path))


def fingerprint(path: Path) -> str:
    """Return the identity of a trained model wherever it lies: the SHA-256 over the hashes of what `load_model` loads.

    Raises:
        InputError: there is no model at this path, or it is damaged (`CheckpointError`).
    """
    entry, _ = read_model(path)
    hashes = {name: record.sha256 for name, record in entry.files.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def save_policy(
    path: Path, files: Mapping[str, bytes], *, step: int, catalogue_hash: str, split_hash: str, config: dict[str, Any]
) -> None:
    """Write a policy's own folder; it loads with `load_policy` and with `GPT2LMHeadModel.from_pretrained`."""
    write_folder(path, files, step=step, catalogue_hash=catalogue_hash, split_hash=split_hash, config=config)
