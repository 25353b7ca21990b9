"""SASRec and GPTRec-Shifting against a plain GPT-2 with position ids made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from gptrec_rl.config import TransformerConfig
from gptrec_rl.data import Histories
from gptrec_rl.decoding import Appending, TopK
from gptrec_rl.errors import InputError
from gptrec_rl.kinds import recommender_of
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.next_item import GPTRecShifting, SASRec
from gptrec_rl.models.sequence import PADDING

HISTORIES = [[], [4], [7, 2, 9], [1, 3, 5, 7, 9], [12, 1, 2, 3, 4, 5, 6]]  # n = 5: empty, short, full and too long
START = 13
CLASSES = {"sasrec": SASRec, "shifting": GPTRecShifting}
Make = Callable[..., SASRec | GPTRecShifting]
both = pytest.mark.parametrize("kind", CLASSES)


@pytest.fixture
def hugging_face(tmp_path: Path) -> Callable[[SASRec | GPTRecShifting], GPT2LMHeadModel]:
    """Return what reads a model's files with Hugging Face's library."""

    def read(model: SASRec | GPTRecShifting) -> GPT2LMHeadModel:
        for name, content in model.to_files().items():
            (tmp_path / name).write_bytes(content)
        return GPT2LMHeadModel.from_pretrained(tmp_path).eval()

    return read


@both
def test_scores_are_a_plain_gpt2s_logits_after_start_token_and_last_items(
    kind: str, make_network: Make, hugging_face: Callable[..., GPT2LMHeadModel]
) -> None:
    model = make_network(kind)
    plain, scores = hugging_face(model), TopK(model, "fp32").score(HISTORIES)
    for history, row in zip(HISTORIES, scores, strict=True):
        read = history[-5:]
        with torch.no_grad():
            logits = plain(torch.tensor([[START, *read]]), position_ids=torch.arange(len(read), -1, -1)[None]).logits
        np.testing.assert_allclose(row, logits[0, -1, 1:13].numpy(), atol=1e-4)


@both
def test_every_place_predicts_from_what_is_before_it(
    kind: str, make_network: Make, hugging_face: Callable[..., GPT2LMHeadModel]
) -> None:
    model, histories = make_network(kind), Histories.of(HISTORIES[:4])
    plain, sequences = hugging_face(model), model.lay_out(Histories.of(HISTORIES[:4]))
    with torch.no_grad():
        states = model.backbone(torch.float32).states(sequences)[sequences.tokens != PADDING]
        expected = [
            plain(torch.tensor([[START, *history]]), position_ids=torch.arange(len(history), -1, -1)[None]).logits[0]
            for history in histories
        ]
    torch.testing.assert_close(model.item_logits(states), torch.cat(expected)[:, 1:13], atol=1e-4, rtol=0)


@both
def test_position_ids_count_from_the_end(kind: str, make_network: Make) -> None:
    sequences = make_network(kind).lay_out(Histories.of([[7, 2, 9]]))
    assert sequences.tokens[:4].tolist() == [START, 7, 2, 9]
    assert sequences.positions[:4].tolist() == [3, 2, 1, 0]


@both
def test_a_new_user_is_the_start_token_alone(kind: str, make_network: Make) -> None:
    sequences = make_network(kind).lay_out(Histories.of([[]]))
    assert sequences.tokens[0] == START
    assert sequences.tokens[1:].count_nonzero() == 0
    assert sequences.chosen_from.tolist() == [[0]]


@both
def test_only_the_last_n_items_matter_and_their_order_does(kind: str, make_network: Make) -> None:
    scores = TopK(make_network(kind), "fp32").score([[1, 2, 3, 4, 5], [9, 8, 1, 2, 3, 4, 5], [1, 2, 3, 5, 4]])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert np.abs(scores[0] - scores[2]).max() > 0.1


def test_shapes_are_those_of_the_papers() -> None:
    sizes = TransformerConfig(n_layers=2, n_heads=2, width=16, history_length=5)
    sasrec, shifting = (kind.create(12, sizes, 0.3).transformer.config for kind in CLASSES.values())
    assert (sasrec.n_inner, sasrec.activation_function) == (16, "relu")
    assert (shifting.n_inner, shifting.activation_function) == (None, "gelu")
    for config in (sasrec, shifting):
        assert (config.vocab_size, config.n_positions, config.history_length) == (14, 6, 5)
        assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.3, 0.3, 0.0)


@both
def test_files_round_trip_and_other_kinds_are_refused(
    kind: str, make_network: Make, make_policy: Callable[..., GPTRec]
) -> None:
    model = make_network(kind)
    loaded = CLASSES[kind].from_files(model.to_files())
    assert loaded.to_files() == model.to_files()
    assert not loaded.training
    other = next(name for name in CLASSES if name != kind)
    with pytest.raises(InputError, match=f"it is a {kind}, not a {other}"):
        CLASSES[other].from_files(model.to_files())
    with pytest.raises(InputError, match=f"it is a gptrec, not a {kind}"):
        CLASSES[kind].from_files(make_policy().to_files())


@both
def test_its_own_strategy_is_top_k(kind: str, make_network: Make) -> None:
    model = make_network(kind)
    assert isinstance(recommender_of(model), TopK)
    assert isinstance(recommender_of(model, "top-k"), TopK)
    assert isinstance(recommender_of(model, "next-k"), Appending)
