"""Guesses of how a list goes on: a tree, so that one pass of the network checks several at once."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
import torch

GUESSES = {torch.bfloat16: 16, torch.float32: 10}
"""Nodes of a tree at most, by the type of the matrix products: as many rows as cost little more than one."""
SHORTLIST = 64
"""Guesses are of so many items that are the likeliest at the first place; a writer has no fewer columns."""
SHARPNESS = 2.0
"""Logits are taken times this: only the likeliest item is right, so it is likelier than a sample is."""


class Tree:
    """Guesses of the items behind one that is right, the root; each path from there is a way the list may go on.

    Args:
        root: the item's column (columns count items from 0).

    Attributes:
        columns: of each node its item's column; the root is first, a node stands behind its parent.
        paths: of each node the nodes that lead to it: the root, ..., itself.
    """

    def __init__(self, root: int) -> None:
        self.columns, self.paths = [root], [[0]]
        self._children: dict[tuple[int, int], int] = {}

    @classmethod
    def guess(cls, right: Sequence[int], shortlist: np.ndarray, logits: np.ndarray, n_nodes: int) -> Tree:
        """Guess what follows the items that are right: the paths that are the likeliest as a whole.

        What was likely at a place behind the last guess, of which an item was wrong, is likely there, and likelier at
        the next place: the right item came between.

        Args:
            right: columns of the items that are right, [n], n >= 1.
            shortlist: columns of the items that are guessed from, [C], C >= n_nodes.
            logits: of these at the place of the last right item and at the m places behind it, each as it was behind
                the items that were right or guessed before, [m + 1, C]; minus infinity where no item may stand.
            n_nodes: how many nodes there may be.
        """
        tree, n_deep = cls(right[-1]), len(logits) - 1
        if not n_deep:
            return tree
        likely = logits[1:] + 2 * logits[:-1]
        likely[:, (shortlist[:, None] == right).any(axis=-1)] = -np.inf
        best = torch.from_numpy(SHARPNESS * likely).topk(n_nodes)
        scores, columns = best.values.tolist(), shortlist[best.indices.numpy()].tolist()
        offers: list[list[tuple[float, int]]] = []  # by each node: losses and columns of what may come behind it
        heap: list[tuple[float, int, int]] = []  # the next best offer of each node: loss, node, rank among its offers

        def open_behind(node: int, loss: float) -> None:
            """Offer what a node's path doesn't hold; the loss is minus the logarithm of a path's chance."""
            path = [tree.columns[other] for other in tree.paths[node]]
            depth = len(path) - 1
            here = zip(scores[depth], columns[depth], strict=True) if depth < n_deep else ()
            free = [(score, column) for score, column in here if column not in path and score > -math.inf]
            total = free[0][0] + math.log(sum(math.exp(score - free[0][0]) for score, _ in free)) if free else 0.0
            offers.append([(loss + total - score, column) for score, column in free])
            if free:
                heapq.heappush(heap, (offers[node][0][0], node, 0))

        open_behind(0, 0.0)
        while heap and len(tree.columns) < n_nodes:
            loss, parent, rank = heapq.heappop(heap)
            if rank + 1 < len(offers[parent]):
                heapq.heappush(heap, (offers[parent][rank + 1][0], parent, rank + 1))
            open_behind(tree.add(parent, offers[parent][rank][1]), loss)
        return tree

    def add(self, parent: int, column: int) -> int:
        """Add an item behind a node and return its own node."""
        node = len(self.columns)
        self.columns.append(column)
        self.paths.append([*self.paths[parent], node])
        self._children[parent, column] = node
        return node

    def check(self, best: Sequence[int]) -> list[int]:
        """Return the path of the nodes that are right, given the best column behind each node."""
        path = [0]
        while (child := self._children.get((path[-1], best[path[-1]]))) is not None:
            path.append(child)
        return path

    def longest(self, path: Sequence[int]) -> list[int]:
        """Return the longest path that begins with this one, the likeliest of equally long ones."""
        return max((longer for longer in self.paths if longer[: len(path)] == path), key=len)
