"""GPTRec: the policy, a GPT-2 that writes a list item by item (sections 2.2 and 3.1, Appendix B)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from gptrec_rl.config import ModelConfig
from gptrec_rl.data import Histories
from gptrec_rl.errors import InputError
from gptrec_rl.models.backbone import Backbone
from gptrec_rl.models.sequence import Sequences, lay_out

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class GPTRec(nn.Module):
    """A `GPT2LMHeadModel` with vocabulary padding, items 1..I, separator, and n + K + 1 position ids.

    Attributes:
        network: the Hugging Face model; input and output embeddings are tied.
        n_items: I.
        history_length: n, the longest history that is read.
        slate_length: K, the longest list that can be written.
    """

    def __init__(self, network: GPT2LMHeadModel) -> None:
        super().__init__()
        self.network = network
        self.n_items = network.config.vocab_size - 2
        self.history_length = int(network.config.history_length)
        self.slate_length = network.config.n_positions - self.history_length - 1

    @classmethod
    def create(cls, n_items: int, config: ModelConfig, dropout: float = 0.0) -> GPTRec:
        """Make an untrained policy from torch's current random state."""
        return cls(
            GPT2LMHeadModel(
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
                    history_length=config.history_length,  # type: ignore[call-arg]  # a further field, saved with it
                )
            )
        )

    @property
    def separator(self) -> int:
        """The token that ends a history."""
        return self.n_items + 1

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    def lay_out(self, histories: Histories, slates: np.ndarray | None = None) -> Sequences:
        """Lay out the last n items of B histories, and lists [B, G, K] behind them, on the model's device."""
        return lay_out(histories, self.history_length, self.separator, self.device, slates)

    def positions(self, start: int, stop: int) -> torch.Tensor:
        """Return position ids of a list's items start..stop-1, counted from 0, [stop - start] int64 (Appendix B)."""
        first = self.history_length + 1
        return torch.arange(first + start, first + stop, device=self.device)

    def backbone(self, dtype: torch.dtype) -> Backbone:
        """Return the engine that runs the present weights, with matrix products in `dtype`."""
        return Backbone(self.network.transformer, dtype)

    def slate_logits(
        self, histories: Histories, slates: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return the logits from which each item of given lists is chosen.

        Args:
            histories: B whole histories.
            slates: [B, G, K] int64, on the processor.
            dtype: of the matrix products.

        Returns:
            [B, G, K, I] float32, unmasked; column i - 1 is item i.
        """
        sequences = self.lay_out(histories, slates.numpy())
        return self.item_logits(self.backbone(dtype).slate_states(sequences))

    @property
    def item_weights(self) -> torch.Tensor:
        """The output embeddings of items 1..I, [I, D] float32."""
        return self.network.lm_head.weight[1 : self.n_items + 1]

    def item_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Project hidden states [..., D] on the items, [..., I], always in fp32: logits tie in bf16."""
        return functional.linear(states, self.item_weights)

    def to_files(self) -> dict[str, bytes]:
        """Return config.json and model.safetensors as `GPT2LMHeadModel.from_pretrained` reads them."""
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        del weights["lm_head.weight"]  # tied to the input embedding
        return {
            CONFIG_FILE: json.dumps(self.network.config.to_dict(), indent=2, sort_keys=True).encode(),
            WEIGHTS_FILE: save_tensors(weights, metadata={"format": "pt"}),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> GPTRec:
        """Read what `to_files` wrote; in eval mode, on the processor.

        Raises:
            InputError: the files are not those of a GPTRec policy.
        """
        try:
            with torch.device("meta"):  # no memory and no random numbers for weights that are about to be replaced
                network = GPT2LMHeadModel(GPT2Config.from_dict(json.loads(files[CONFIG_FILE])))
            weights = load_tensors(files[WEIGHTS_FILE])
            weights["lm_head.weight"] = weights["transformer.wte.weight"]
            network.load_state_dict(weights, assign=True)
            network.tie_weights()
            return cls(network).eval()
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
            raise InputError(f"these are not the files of a GPTRec policy ({error}); train or fetch it again") from None
