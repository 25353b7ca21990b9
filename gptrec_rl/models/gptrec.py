"""GPTRec: the policy, a GPT-2 that writes a list item by item (sections 2.2 and 3.1, Appendix B)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn import functional

from gptrec_rl.config import ModelConfig
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models.backbone import Backbone
from gptrec_rl.models.gpt2 import Gpt2, Gpt2Config
from gptrec_rl.models.sequence import Sequences, lay_out

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PREFIX = "transformer."


class GPTRec(nn.Module):
    """A GPT-2 with vocabulary padding, items 1..I, separator, n + K + 1 position ids, and tied embeddings.

    Attributes:
        transformer: the weights.
        n_items: I.
        history_length: n, the longest history that is read.
        slate_length: K, the longest list that can be written.
    """

    def __init__(self, transformer: Gpt2) -> None:
        super().__init__()
        config = transformer.config
        self.transformer = transformer
        self.n_items = config.vocab_size - 2
        self.history_length = config.history_length
        self.slate_length = config.n_positions - self.history_length - 1

    @classmethod
    def create(cls, n_items: int, config: ModelConfig, dropout: float = 0.0) -> GPTRec:
        """Make an untrained policy from torch's current random state, as Hugging Face's GPT-2 starts."""
        from transformers import GPT2Config, GPT2Model

        gpt2 = GPT2Model(
            GPT2Config(
                vocab_size=n_items + 2,
                n_positions=config.history_length + config.slate_length + 1,
                n_embd=config.width,
                n_layer=config.n_layers,
                n_head=config.n_heads,
                activation_function="gelu",  # GPT-2's own approximates it and takes three times as long
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                bos_token_id=n_items + 1,
                eos_token_id=n_items + 1,
                pad_token_id=0,
                architectures=["GPT2LMHeadModel"],
                history_length=config.history_length,  # type: ignore[call-arg]  # a further field, saved with it
            )
        )
        return cls(Gpt2(Gpt2Config.model_validate(gpt2.config.to_dict()), gpt2.state_dict()))

    @property
    def network(self) -> GPT2LMHeadModel:
        """The same weights, shared, as Hugging Face's model, in the same mode."""
        from transformers import GPT2Config, GPT2LMHeadModel

        with torch.device("meta"):
            network = GPT2LMHeadModel(GPT2Config.from_dict(self.transformer.config.model_dump()))
        network.transformer.load_state_dict(dict(self.transformer.named_parameters()), assign=True)
        network.tie_weights()
        return network.train(self.training)

    @property
    def separator(self) -> int:
        """The token that ends a history."""
        return self.n_items + 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.item_weights.device

    def lay_out(self, histories: Histories, slates: np.ndarray | None = None) -> Sequences:
        """Lay out the last n items of B histories, and lists [B, G, K] behind them, on the model's device."""
        return lay_out(histories, self.history_length, self.separator, self.device, slates)

    def positions(self, start: int, stop: int) -> torch.Tensor:
        """Return position ids of a list's items start..stop-1, counted from 0, [stop - start] int64 (Appendix B)."""
        first = self.history_length + 1
        return torch.arange(first + start, first + stop, device=self.device)

    def backbone(self, dtype: torch.dtype) -> Backbone:
        """Return the engine that runs the present weights, with matrix products in `dtype`."""
        return Backbone(self.transformer, dtype)

    def slate_logits(
        self, histories: Histories, slates: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return the logits from which each item of given lists is chosen.

        Args:
            histories: B whole histories.
            slates: [B, G, K] int64.
            dtype: of the matrix products.

        Returns:
            [B, G, K, I] float32, unmasked; column i - 1 is item i.
        """
        sequences = self.lay_out(histories, slates.cpu().numpy())
        return self.item_logits(self.backbone(dtype).slate_states(sequences))

    @property
    def item_weights(self) -> torch.Tensor:
        """The output embeddings of items 1..I, [I, D] float32."""
        return self.transformer.get_parameter("wte.weight")[1 : self.n_items + 1]

    def item_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Project hidden states [..., D] on the items, [..., I], always in fp32: logits tie in bf16."""
        return functional.linear(states, self.item_weights)

    def to_files(self) -> dict[str, bytes]:
        """Return config.json and model.safetensors as `GPT2LMHeadModel.from_pretrained` reads them."""
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        return {
            CONFIG_FILE: json.dumps(self.transformer.config.model_dump(), indent=2, sort_keys=True).encode(),
            WEIGHTS_FILE: save_tensors(weights, metadata={"format": "pt"}),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> GPTRec:
        """Read what `to_files` wrote; in eval mode, on the processor.

        Raises:
            InputError: the files are not those of a GPTRec policy.
        """
        try:
            config = Gpt2Config.model_validate_json(files[CONFIG_FILE])
            weights = load_tensors(files[WEIGHTS_FILE])
            unknown = [name for name in weights if not name.startswith(PREFIX)]
            if unknown:
                raise ValueError(f"unknown weights: {', '.join(sorted(unknown)[:3])}")
            return cls(Gpt2(config, {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})).eval()
        except (KeyError, ValueError, SafetensorError) as error:
            raise InputError(f"these are not the files of a GPTRec policy ({error}); train or fetch it again") from None
