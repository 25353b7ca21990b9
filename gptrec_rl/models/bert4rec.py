"""BERT4Rec (Sun et al., 2019) on Hugging Face's BERT: a Transformer that sees both ways and fills in masked items.

To recommend, a mask is put behind the history. Position ids count from the end, as in the other models, so the place
of the next item has the same id however long the history is, and a new user is the mask alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn import functional

from gptrec_rl.config import Precision, TransformerConfig
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models.network import CONFIG_FILE, WEIGHTS_FILE, Network, require_weights
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.sequence import PADDING, WIDTH_STEP, parts_of
from gptrec_rl.models.work_sizes import work_sizes_of
from gptrec_rl.recommender import HistoriesLike, Slates, candidates, top_k

if TYPE_CHECKING:
    from transformers import BertForMaskedLM


class BertFile(BaseModel):
    """What of a `config.json` matters here, and what it must say. Names are Hugging Face's, but for the first."""

    model_config = ConfigDict(frozen=True, extra="allow")

    recommender: Literal["bert4rec"]
    vocab_size: int = Field(ge=3)
    max_position_embeddings: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    layer_norm_eps: float = Field(gt=0, allow_inf_nan=False)
    hidden_dropout_prob: float = Field(ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(ge=0, lt=1)
    hidden_act: Literal["gelu"]
    type_vocab_size: Literal[1]
    is_decoder: Literal[False]
    tie_word_embeddings: Literal[True]


class Bert4Rec(Network):
    """A BERT whose vocabulary is padding, items 1..I and the mask.

    Attributes:
        network: Hugging Face's model; its files are this model's files.
        n_items: I.
        history_length: n, how many places there are: the last n - 1 items are read, and the mask.
        mask_token: I + 1.
    """

    def __init__(self, network: BertForMaskedLM) -> None:
        super().__init__()
        network.set_attn_implementation("eager")  # trains a third faster on processors than "sdpa" at such lengths
        self.network = network
        self.n_items = network.config.vocab_size - 2
        self.history_length = network.config.max_position_embeddings
        self.mask_token = self.n_items + 1

    @classmethod
    def create(cls, n_items: int, sizes: TransformerConfig, dropout: float = 0.0) -> Bert4Rec:
        """Make an untrained model from torch's current random state; attention itself has no dropout."""
        from transformers import BertConfig, BertForMaskedLM

        config = BertConfig(
            vocab_size=n_items + 2,
            max_position_embeddings=sizes.history_length,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.n_layers,
            num_attention_heads=sizes.n_heads,
            intermediate_size=4 * sizes.width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=0.0,
            type_vocab_size=1,
            pad_token_id=PADDING,
            architectures=["BertForMaskedLM"],
            recommender="bert4rec",  # type: ignore[call-arg]  # a further field, saved with it
        )
        return cls(BertForMaskedLM(config))

    def masked_states(self, sequences: Histories, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return what the model makes of the masks, [N, D + 1] float32: the states that are projected, and a 1.

        Args:
            sequences: items and masks, 1..n tokens each.
            dtype: of the matrix products.

        Returns:
            a row for each mask, in the order of `sequences.values`.
        """
        tokens, positions = (torch.from_numpy(array).to(self.device) for array in _lay_out(sequences))  # [B, W]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            states = self.network.bert(tokens, attention_mask=tokens != PADDING, position_ids=positions)[0]
            masked = self.network.cls.predictions.transform(states[tokens == self.mask_token]).float()  # [N, D]
        return torch.cat([masked, masked.new_ones(len(masked), 1)], dim=1)

    @property
    def item_weights(self) -> torch.Tensor:
        """The output embeddings of items 1..I, and behind each its bias, [I, D + 1] float32."""
        predictions = self.network.cls.predictions
        weights = torch.cat([predictions.decoder.weight, predictions.bias[:, None]], dim=1)
        return weights[1 : self.n_items + 1]

    def to_files(self) -> dict[str, bytes]:
        """Return config.json and model.safetensors as `BertForMaskedLM.from_pretrained` reads them."""
        weights = {name: tensor.detach().contiguous() for name, tensor in self.network.named_parameters()}
        return {
            CONFIG_FILE: json.dumps(self.network.config.to_dict(), indent=2, sort_keys=True).encode(),
            WEIGHTS_FILE: save_tensors(weights, metadata={"format": "pt"}),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Bert4Rec:
        """Read what `to_files` wrote; in eval mode, on the processor.

        Raises:
            InputError: the files are not those of such a model.
        """
        from transformers import BertConfig, BertForMaskedLM

        try:
            file = BertFile.model_validate_json(files[CONFIG_FILE])
            weights = load_tensors(files[WEIGHTS_FILE])
            config = BertConfig.from_dict(file.model_dump())
            _require_depth(config.num_hidden_layers, weights)
            with torch.device("meta"):
                sizes = {name: weight.shape for name, weight in BertForMaskedLM(config).named_parameters()}
            require_weights(weights, sizes)
            network = BertForMaskedLM(config)
        except (KeyError, ValueError, SafetensorError) as error:
            raise InputError(f"these are not the files of a BERT4Rec ({error}); train or fetch it again") from None
        network.load_state_dict(weights, strict=False)  # what is tied is not in the files
        return cls(network).eval()


class MaskScorer:
    """BERT4Rec as a scoring recommender: an item's score is its logit at the mask behind the history."""

    def __init__(self, model: Bert4Rec, precision: Precision = "auto") -> None:
        self._model = model.eval()
        self._precision = precision

    @torch.inference_mode()
    def score(self, histories: HistoriesLike) -> np.ndarray:
        """Return the logits at the mask, [B, I] float32; always computed in fp32: logits tie in bf16."""
        histories, model = Histories.of(histories, self._model.n_items), self._model
        read = model.history_length - 1
        scores = np.zeros((len(histories), model.n_items), dtype=np.float32)
        dtype = product_dtype(self._precision, model.device, model.width)
        for rows in parts_of(np.minimum(histories.lengths, read) + 1, work_sizes_of(model.device), model.n_items):
            recent = [history[max(0, len(history) - read) :] for history in histories.take(rows)]
            states = model.masked_states(Histories.of([[*items, model.mask_token] for items in recent]), dtype)
            scores[rows] = functional.linear(states, model.item_weights).cpu().numpy()
        return scores

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Recommend the K items with the largest logits; see `Recommender`."""
        histories = Histories.of(histories, self._model.n_items)
        return top_k(self.score(histories), candidates(histories, self._model.n_items, k, allowed), k)


def _lay_out(sequences: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences behind their ends; return tokens and position ids, [B, W] int64; the last token's id is 0."""
    lengths = sequences.lengths[:, None]  # [B, 1]
    columns = np.arange(-(-lengths.max() // WIDTH_STEP) * WIDTH_STEP)
    is_real = columns < lengths  # [B, W]
    tokens = np.full(is_real.shape, PADDING, dtype=np.int64)
    tokens[is_real] = sequences.values
    return tokens, np.where(is_real, lengths - 1 - columns, 0)


def _require_depth(n_layers: int, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse another number of weights than a BERT of this depth has, before one is made."""
    expected = 16 * n_layers + 10
    if len(weights) != expected:
        raise ValueError(f"{len(weights)} weights, and {n_layers} layers have {expected}")
