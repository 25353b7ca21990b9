"""The paper's models, one file each, behind the `Recommender` protocol.

Shapes are written with these letters throughout the library: B histories, T the length of a history, n the longest
history a model reads, K items a list (`slate` in code), G lists a history, I items in the catalogue, D model width.
"""
