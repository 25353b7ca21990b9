"""The paper's evidence: rows of Table 3 and curves of its figures as small files, their results, and what follows.

A folder such as `experiments/ml1m` is a set: `dataset.toml` and one file a row. What was measured of a row is kept by
`store`; `evidence` compares the rows with the published numbers and with each other.
"""
