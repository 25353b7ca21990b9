"""How a model's outputs become lists: item by item (Next-K), or all at once by score (Top-K)."""
