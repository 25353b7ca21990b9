"""Transport: the recommendation cache, the checkpoint store, the metrics stream, the lease and the ids.

Each has a kind over Redis (or files) and one in memory. Nothing here needs torch.
"""
