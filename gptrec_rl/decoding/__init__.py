"""How a model's outputs become lists: item by item (Next-K), or all at once by score (Top-K)."""

from gptrec_rl.decoding.appending import Appending
from gptrec_rl.decoding.next_k import NextK, generate
from gptrec_rl.decoding.top_k import TopK

__all__ = ["Appending", "NextK", "TopK", "generate"]
