"""The policy: its tokens, its files, and what others read from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from transformers import GPT2LMHeadModel

from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec


def test_vocabulary_and_positions_follow_appendix_b(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy(n_items=12, history_length=5, slate_length=3)
    config = policy.network.config
    assert config.vocab_size == 14  # padding, 12 items, separator
    assert config.n_positions == 9  # separator 0, history 1..5, list 6..8
    assert (policy.separator, policy.n_items, policy.history_length, policy.slate_length) == (13, 12, 5, 3)
    assert policy.network.lm_head.weight is policy.network.transformer.wte.weight


def test_saved_policy_loads_in_hugging_face_and_gives_the_same_logits(
    make_policy: Callable[..., GPTRec], tmp_path: Path
) -> None:
    policy = make_policy()
    for name, content in policy.to_files().items():
        (tmp_path / name).write_bytes(content)
    loaded, info = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = policy.slate_logits(Histories.of([[7, 2, 9]]), torch.tensor([[[4, 1, 12]]]))[0, 0]
    logits = loaded.eval()(
        input_ids=torch.tensor([[7, 2, 9, 13, 4, 1]]), position_ids=torch.tensor([[3, 2, 1, 0, 6, 7]])
    ).logits[0, -3:, 1:13]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_lists_beyond_the_positions_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy(slate_length=3)
    with pytest.raises(InputError, match="lists of 4 items are longer than the 3 that this policy has positions for"):
        policy.slate_logits(Histories.of([[7]]), torch.tensor([[[4, 1, 12, 2]]]))


def test_files_round_trip_bit_for_bit(make_policy: Callable[..., GPTRec]) -> None:
    policy = make_policy(history_length=7, slate_length=2)
    loaded = GPTRec.from_files(policy.to_files())
    assert (loaded.history_length, loaded.slate_length, loaded.n_items) == (7, 2, 12)
    assert not loaded.training
    for name, weights in policy.state_dict().items():
        assert torch.equal(weights, loaded.state_dict()[name]), name
    assert loaded.to_files() == policy.to_files()


def test_loaded_output_embedding_stays_tied(make_policy: Callable[..., GPTRec]) -> None:
    loaded = GPTRec.from_files(make_policy().to_files())
    assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{not json"),
        ("config.json", b'{"vocab_size": 14, "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 9}'),
        ("config.json", b"[1, 2]"),
        ("model.safetensors", b"\x00\x01garbage"),
        ("model.safetensors", b""),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, make_policy: Callable[..., GPTRec]) -> None:
    files = make_policy().to_files() | {name: content}
    with pytest.raises(InputError, match="not the files of a GPTRec model"):
        GPTRec.from_files(files)


def test_missing_and_truncated_files_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    files = make_policy().to_files()
    with pytest.raises(InputError, match="not the files of a GPTRec model"):
        GPTRec.from_files({"config.json": files["config.json"]})
    with pytest.raises(InputError, match="not the files of a GPTRec model"):
        GPTRec.from_files(files | {"model.safetensors": files["model.safetensors"][:-10]})


def test_weights_of_another_size_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    other = make_policy(n_items=13).to_files()
    with pytest.raises(InputError, match=r"another shape: wte\.weight"):
        GPTRec.from_files(make_policy().to_files() | {"model.safetensors": other["model.safetensors"]})


def with_settings(files: dict[str, bytes], **settings: object) -> dict[str, bytes]:
    return files | {"config.json": json.dumps(json.loads(files["config.json"]) | settings).encode()}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"n_head": 3}, "n_embd 16 can't be shared by 3 heads"),
        ({"history_length": 8}, "9 positions leave no list behind 8 items"),
        ({"n_layer": 3_000_000}, "28 weights, and 3000000 layers have 36000004"),
        ({"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon"),
        ({"n_inner": 32}, "of another shape: h.0.mlp.c_fc.bias"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
    ],
)
def test_a_gpt2_that_is_not_run_as_it_says_is_refused(
    settings: dict[str, object], complaint: str, make_policy: Callable[..., GPTRec]
) -> None:
    with pytest.raises(InputError, match=complaint):
        GPTRec.from_files(with_settings(make_policy().to_files(), **settings))


def test_a_history_that_leaves_one_position_leaves_lists_of_one_item(make_policy: Callable[..., GPTRec]) -> None:
    assert GPTRec.from_files(with_settings(make_policy().to_files(), history_length=7)).slate_length == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value: float, make_policy: Callable[..., GPTRec]) -> None:
    files = make_policy().to_files()
    weights = load(files["model.safetensors"])
    weights["transformer.h.1.mlp.c_fc.weight"][3, 5] = value
    with pytest.raises(InputError, match=r"not finite: h\.1\.mlp\.c_fc\.weight"):
        GPTRec.from_files(files | {"model.safetensors": save(weights)})


def test_weights_under_other_names_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    files = make_policy().to_files()
    weights = load(files["model.safetensors"])
    weights["ln_f.bias"] = weights.pop("transformer.ln_f.bias")
    with pytest.raises(InputError, match=r"unknown weights: ln_f\.bias"):
        GPTRec.from_files(files | {"model.safetensors": save(weights)})
