"""BERT4Rec against Hugging Face's BERT, read from its files, with position ids made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from transformers import BertForMaskedLM

from gptrec_rl.config import TransformerConfig
from gptrec_rl.data import Histories
from gptrec_rl.decoding import Appending
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import recommender_of
from gptrec_rl.models.bert4rec import Bert4Rec, MaskScorer

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
MASK = 13


@pytest.fixture
def model(make_network: Callable[..., Bert4Rec]) -> Bert4Rec:
    return make_network("bert4rec")


@pytest.fixture
def plain_logits(model: Bert4Rec, tmp_path: Path) -> Callable[[list[int]], torch.Tensor]:
    """Return the oracle: the items' logits at each token of one sequence, [T, I]."""
    for name, content in model.to_files().items():
        (tmp_path / name).write_bytes(content)
    plain, info = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    plain.eval()

    @torch.no_grad()
    def logits(tokens: list[int]) -> torch.Tensor:
        positions = torch.arange(len(tokens) - 1, -1, -1)[None]
        return plain(torch.tensor([tokens]), position_ids=positions).logits[0, :, 1:13]

    return logits


def test_scores_are_the_logits_at_a_mask_behind_the_last_items(
    model: Bert4Rec, plain_logits: Callable[[list[int]], torch.Tensor]
) -> None:
    scores = MaskScorer(model, "fp32").score(HISTORIES)
    assert (scores.shape, scores.dtype) == ((5, 12), np.float32)
    for history, row in zip(HISTORIES, scores, strict=True):
        np.testing.assert_allclose(row, plain_logits([*history[-4:], MASK])[-1].numpy(), atol=1e-4)


def test_a_sequence_may_have_masks_anywhere(model: Bert4Rec, plain_logits: Callable[[list[int]], torch.Tensor]) -> None:
    sequences = [[MASK, 2, MASK], [1, 2, 3, 4, MASK], [MASK], [5, MASK, 7, 8]]
    with torch.no_grad():
        logits = model.masked_states(Histories.of(sequences)) @ model.item_weights.T
    expected = [
        plain_logits(tokens)[place] for tokens in sequences for place in range(len(tokens)) if tokens[place] == MASK
    ]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=0)


def test_what_follows_a_mask_matters(model: Bert4Rec) -> None:
    with torch.no_grad():
        one, other = model.masked_states(Histories.of([[3, MASK, 4], [3, MASK, 5]]))
    assert (one - other).abs().max() > 0.1


def test_scores_keep_the_order_of_their_histories_across_parts(model: Bert4Rec, cut_into: Callable[..., None]) -> None:
    scorer = MaskScorer(model, "fp32")
    histories = [HISTORIES[place] for place in (4, 0, 3, 1, 2)]
    cut_into(tokens_per_part=1)
    scores = scorer.score(histories)
    for row, history in zip(scores, histories, strict=True):
        np.testing.assert_allclose(row, scorer.score([history])[0], atol=1e-5)
    assert scorer.score([]).shape == (0, 12)


def test_bf16_changes_scores_a_little_and_logits_stay_float32(model: Bert4Rec) -> None:
    exact, rough = MaskScorer(model, "fp32").score(HISTORIES), MaskScorer(model, "bf16").score(HISTORIES)
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()


def test_lists_hold_the_best_unseen_items(model: Bert4Rec) -> None:
    slates = recommender_of(model).recommend(HISTORIES, 4)
    for history, scores, items in zip(HISTORIES, MaskScorer(model).score(HISTORIES), slates.items, strict=True):
        unseen = [item for item in np.argsort(-scores, kind="stable") + 1 if item not in history]
        assert items.tolist() == unseen[:4]
    assert isinstance(recommender_of(model, "next-k"), Appending)


def test_its_size_and_dropout_are_those_asked_for() -> None:
    sizes = TransformerConfig(n_layers=3, n_heads=4, width=32, history_length=7)
    model = Bert4Rec.create(20, sizes, 0.3)
    config = model.network.config
    assert (model.n_items, model.history_length, model.mask_token) == (20, 7, 21)
    assert (config.num_hidden_layers, config.num_attention_heads, config.intermediate_size) == (3, 4, 128)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.0)
    loaded = Bert4Rec.from_files(model.to_files())
    assert loaded.network.config.hidden_dropout_prob == 0.3


def test_files_round_trip(model: Bert4Rec) -> None:
    loaded = Bert4Rec.from_files(model.to_files())
    assert loaded.to_files() == model.to_files()
    assert not loaded.training
    np.testing.assert_array_equal(MaskScorer(loaded).score(HISTORIES), MaskScorer(model).score(HISTORIES))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"recommender": "sasrec"}, "recommender"),
        ({"num_attention_heads": 3}, "attention heads"),
        ({"num_hidden_layers": 3_000_000}, "42 weights, and 3000000 layers have 48000010"),
        ({"vocab_size": 15}, "another shape: bert.embeddings.word_embeddings.weight"),
        ({"max_position_embeddings": 6}, "another shape: bert.embeddings.position_embeddings.weight"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"is_decoder": True}, "is_decoder"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
    ],
)
def test_a_bert_that_is_not_run_as_it_says_is_refused(
    settings: dict[str, object], complaint: str, model: Bert4Rec
) -> None:
    files = model.to_files()
    config = json.loads(files["config.json"]) | settings
    with pytest.raises(InputError, match=complaint):
        Bert4Rec.from_files(files | {"config.json": json.dumps(config).encode()})


def test_damaged_files_are_refused(model: Bert4Rec) -> None:
    files = model.to_files()
    for damage in ({"config.json": b"{"}, {"model.safetensors": b"x"}):
        with pytest.raises(InputError, match="not the files of a BERT4Rec"):
            Bert4Rec.from_files(files | damage)
    with pytest.raises(InputError, match="not the files of a BERT4Rec"):
        Bert4Rec.from_files({"config.json": files["config.json"]})
    weights = load(files["model.safetensors"])
    weights["cls.predictions.bias"][3] = float("nan")
    with pytest.raises(InputError, match=r"not finite: cls\.predictions\.bias"):
        Bert4Rec.from_files(files | {"model.safetensors": save(weights)})
