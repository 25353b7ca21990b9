from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from gptrec_rl.data import Catalogue
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.checkpoints import CheckpointStore
from gptrec_rl.store.manifest import Origin
from gptrec_rl.store.trained_models import STORE, STUDENT, fingerprint, load_policy, read_model, save_policy

MakePolicy = Callable[..., GPTRec]


@pytest.fixture
def catalogue() -> Catalogue:
    ids = np.array([f"item {item}" for item in range(1, 13)])
    return Catalogue(ids, ids)


def save(folder: Path, policy: GPTRec, catalogue: Catalogue, step: int = 5) -> Path:
    files = policy.to_files()
    save_policy(folder, files, step=step, catalogue_hash=catalogue.hash, split_hash="s", config={"seed": 3})
    return folder


def publish(folder: Path, policies: list[GPTRec], catalogue: Catalogue) -> CheckpointStore:
    store = CheckpointStore(str(folder / STORE))
    for version, policy in enumerate(policies):
        store.publish_policy(
            policy.to_files(),
            Origin(token=1, version=version, step=version, catalogue_hash=catalogue.hash, split_hash="s", config={}),
        )
    return store


def test_a_policy_comes_back_as_it_was(make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path) -> None:
    policy = make_policy()
    loaded = load_policy(save(tmp_path / "policy", policy, catalogue), catalogue)
    assert loaded.to_files() == policy.to_files()
    assert (loaded.history_length, loaded.slate_length, loaded.n_items) == (5, 3, 12)
    assert not loaded.training
    entry, _ = read_model(tmp_path / "policy")
    assert (entry.step, entry.split_hash, entry.config) == (5, "s", {"seed": 3})


def test_a_model_is_known_by_its_content_wherever_it_lies(
    make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    policies = [make_policy(seed=seed) for seed in range(2)]
    alone = fingerprint(save(tmp_path / "a", policies[0], catalogue))
    assert len(alone) == 64
    assert fingerprint(save(tmp_path / "b" / STUDENT, policies[0], catalogue, step=7)) == alone
    assert fingerprint(tmp_path / "b") == alone
    store = publish(tmp_path / "tuned", policies, catalogue)
    assert fingerprint(tmp_path / "tuned") == fingerprint(save(tmp_path / "c", policies[1], catalogue)) != alone
    assert store.mark_best(store.policies()[0], 1.0)
    assert fingerprint(tmp_path / "tuned") == alone
    with pytest.raises(InputError, match="is not a checkpoint"):
        fingerprint(tmp_path / "nowhere")


def test_hugging_face_loads_it_with_the_same_logits(
    make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    policy = make_policy()
    theirs = GPT2LMHeadModel.from_pretrained(save(tmp_path / "policy", policy, catalogue)).eval()
    tokens = torch.tensor([[3, 1, 4, 13, 5, 9]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, policy.network(tokens).logits)


def test_the_folder_of_pretrain_is_its_student(make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path) -> None:
    policy = make_policy()
    save(tmp_path / STUDENT, policy, catalogue)
    assert load_policy(tmp_path, catalogue).to_files() == policy.to_files()


def test_the_folder_of_tune_is_its_best_policy_else_its_newest(
    make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    policies = [make_policy(seed=seed) for seed in range(3)]
    save(tmp_path / STUDENT, make_policy(seed=9), catalogue)
    store = publish(tmp_path, policies, catalogue)
    assert load_policy(tmp_path, catalogue).to_files() == policies[2].to_files()
    store.mark_best(store.policies()[1], 0.5)
    assert load_policy(tmp_path, catalogue).to_files() == policies[1].to_files()


def test_one_policy_of_a_store_loads_by_its_path(make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path) -> None:
    policies = [make_policy(seed=seed) for seed in range(2)]
    publish(tmp_path, policies, catalogue)
    loaded = load_policy(tmp_path / STORE / "policies/v00000000-token_1", catalogue)
    assert loaded.to_files() == policies[0].to_files()


def test_a_tuning_run_without_a_policy_is_named(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / STORE).mkdir()
    with pytest.raises(InputError, match="has not published a policy"):
        load_policy(tmp_path, catalogue)


def test_a_path_without_a_policy_is_named(tmp_path: Path, catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match=r"is not a checkpoint: it has no manifest\.json"):
        load_policy(tmp_path / "nowhere", catalogue)


def test_a_policy_of_another_catalogue_is_refused(
    make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    folder = save(tmp_path / "policy", make_policy(), catalogue)
    other = dataclasses.replace(catalogue, item_ids=np.char.upper(catalogue.item_ids))
    with pytest.raises(InputError, match="was trained on another catalogue"):
        load_policy(folder, other)
    former = json.loads((folder / "manifest.json").read_text())["catalogue_hash"]
    load_policy(folder, dataclasses.replace(other, former_hash=former))  # the data file is of an earlier release


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], r"model\.safetensors has \d+ bytes"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), r"model\.safetensors was altered"),
    ],
)
def test_a_damaged_file_is_named(
    damage: Callable[[bytes], bytes], message: str, make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    weights = save(tmp_path / "policy", make_policy(), catalogue) / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_policy(tmp_path / "policy", catalogue)


def test_saving_again_replaces_the_policy_and_nothing_else_is_replaced(
    make_policy: MakePolicy, catalogue: Catalogue, tmp_path: Path
) -> None:
    newer = make_policy(seed=1)
    save(tmp_path / "policy", make_policy(), catalogue)
    save(tmp_path / "policy", newer, catalogue, step=6)
    assert load_policy(tmp_path / "policy", catalogue).to_files() == newer.to_files()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="exists and is not a checkpoint folder"):
        save(tmp_path / "notes", newer, catalogue)
    assert (tmp_path / "notes/thesis.tex").read_text() == "precious"
