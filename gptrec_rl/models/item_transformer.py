"""What GPTRec, SASRec and GPTRec-Shifting have in common: a causal Transformer over items with tied embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn import functional

from gptrec_rl.config import TransformerConfig
from gptrec_rl.errors import InputError
from gptrec_rl.models.backbone import Backbone
from gptrec_rl.models.gpt2 import Gpt2, Gpt2Config
from gptrec_rl.models.network import CONFIG_FILE, WEIGHTS_FILE, Network

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

PREFIX = "transformer."


class ItemTransformer(Network):
    """A GPT-2 whose vocabulary is padding, items 1..I and a marker.

    Attributes:
        transformer: the weights.
        n_items: I.
        history_length: n, the longest history that is read.
    """

    KINDS: ClassVar[tuple[str, ...]]
    """What `config.json` may call such a model, under "recommender"."""

    def __init__(self, transformer: Gpt2) -> None:
        super().__init__()
        config = transformer.config
        if config.recommender not in self.KINDS:
            raise ValueError(f"it is a {config.recommender}, not a {' or '.join(self.KINDS)}")
        self.transformer = transformer
        self.n_items = config.vocab_size - 2
        self.history_length = config.history_length

    @classmethod
    def initialised(cls, n_items: int, sizes: TransformerConfig, n_positions: int, **settings: Any) -> Self:
        """Make an untrained model from torch's current random state, as Hugging Face's GPT-2 starts.

        Args:
            n_items: I.
            sizes: of the Transformer.
            n_positions: how many position ids there are.
            settings: further fields of `GPT2Config`, and of `Gpt2Config`.
        """
        from transformers import GPT2Config, GPT2Model

        gpt2 = GPT2Model(
            GPT2Config(
                vocab_size=n_items + 2,
                n_positions=n_positions,
                n_embd=sizes.width,
                n_layer=sizes.n_layers,
                n_head=sizes.n_heads,
                bos_token_id=n_items + 1,
                eos_token_id=n_items + 1,
                pad_token_id=0,
                architectures=["GPT2LMHeadModel"],
                history_length=sizes.history_length,  # type: ignore[call-arg]  # a further field, saved with it
                **settings,
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

    def backbone(self, dtype: torch.dtype) -> Backbone:
        """Return the engine that runs the present weights, with matrix products in `dtype`."""
        return Backbone(self.transformer, dtype)

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
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read what `to_files` wrote; in eval mode, on the processor.

        Raises:
            InputError: the files are not those of such a model.
        """
        try:
            config = Gpt2Config.model_validate_json(files[CONFIG_FILE])
            weights = load_tensors(files[WEIGHTS_FILE])
            unknown = [name for name in weights if not name.startswith(PREFIX)]
            if unknown:
                raise ValueError(f"unknown weights: {', '.join(sorted(unknown)[:3])}")
            return cls(Gpt2(config, {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})).eval()
        except (KeyError, ValueError, SafetensorError) as error:
            raise InputError(
                f"these are not the files of a {cls.__name__} model ({error}); train or fetch it again"
            ) from None
