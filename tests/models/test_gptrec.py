"""The policy: its tokens, its files, and what others read from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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
    with pytest.raises(InputError, match="not the files of a GPTRec policy"):
        GPTRec.from_files(files)


def test_missing_and_truncated_files_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    files = make_policy().to_files()
    with pytest.raises(InputError, match="not the files of a GPTRec policy"):
        GPTRec.from_files({"config.json": files["config.json"]})
    with pytest.raises(InputError, match="not the files of a GPTRec policy"):
        GPTRec.from_files(files | {"model.safetensors": files["model.safetensors"][:-10]})


def test_weights_of_another_size_are_refused(make_policy: Callable[..., GPTRec]) -> None:
    other = make_policy(n_items=13).to_files()
    with pytest.raises(InputError, match=r"another shape: wte\.weight"):
        GPTRec.from_files(make_policy().to_files() | {"model.safetensors": other["model.safetensors"]})
