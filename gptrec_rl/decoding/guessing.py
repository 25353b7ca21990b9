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
"""Guesses are of so many items that are the likeliest at the first place."""
SHARPNESS = 8.0
"""Logits are taken times this: only the likeliest item is right, so it is likelier than a sample is."""
SHRINKAGE = 0.5
"""So much of a change that was seen is expected the next time."""


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


class Guesser:
    """Guesses how the list behind one history goes on, and learns from what came of it.

    What an item changes, the logits behind it less those before it, depends little on where it stands. So the logits
    behind a path are guessed to be those in front of it, which are known, and a part of what each of its items changed
    when it was last run: nothing if it never was.

    Args:
        logits: of the first item, [I + spare] float32; minus infinity where none may stand.

    Attributes:
        shortlist: columns of the C items that are guessed from; below they are known by their places in it.
    """

    def __init__(self, logits: np.ndarray) -> None:
        likeliest = np.argpartition(logits, -SHORTLIST)[-SHORTLIST:]
        self.shortlist = likeliest[logits[likeliest] > -math.inf]
        self._places = {column: place for place, column in enumerate(self.shortlist.tolist())}
        self._others = len(self._places)  # the place of all others
        self._in_front = logits[self.shortlist]  # of the last item that is right, [C]
        self._changes = np.zeros((self._others + 1, self._others), dtype=np.float32)  # by the place of an item

    def guess(self, right: Sequence[int], n_deep: int, n_nodes: int) -> Tree:
        """Guess what follows the items that are right: the paths that are the likeliest as a whole.

        Args:
            right: columns of the items that are right, [n], n >= 1; the last is the root.
            n_deep: how many items a path may have behind the root, >= 0.
            n_nodes: how many nodes there may be, the root among them.
        """
        tree = Tree(right[-1])
        logits: list[np.ndarray] = []  # behind each node, [C], times SHARPNESS
        losses: list[float] = []  # of a child of each node, were its logit 0
        left: list[np.ndarray] = []  # the logits of children that weren't offered yet
        offers: list[tuple[float, int, int]] = []  # a heap of the next best child of each node: loss, node, place

        def offer(node: int) -> None:
            """Offer another child; the loss is minus the logarithm of a path's chance."""
            place = int(left[node].argmax())
            if (logit := float(left[node][place])) > -math.inf:
                heapq.heappush(offers, (losses[node] - logit, node, place))
                left[node][place] = -math.inf

        def open_behind(node: int, loss: float, behind: np.ndarray) -> None:
            """Let a node have children."""
            logits.append(behind)
            losses.append(loss + float(np.logaddexp.reduce(behind)))
            left.append(behind.copy())
            if len(tree.paths[node]) <= n_deep:
                offer(node)

        changes = SHARPNESS * self._changes
        behind = SHARPNESS * self._in_front + changes[self._place(right[-1])]
        behind[[self._places[column] for column in right if column in self._places]] = -math.inf
        open_behind(0, 0.0, behind)
        while offers and len(tree.columns) < n_nodes:
            loss, parent, place = heapq.heappop(offers)
            offer(parent)
            behind = logits[parent] + changes[place]
            behind[place] = -math.inf
            open_behind(tree.add(parent, int(self.shortlist[place])), loss, behind)
        return tree

    def learn(self, tree: Tree, logits: np.ndarray, path: Sequence[int]) -> None:
        """Learn what came of a guess.

        Args:
            tree: the guess, of Q nodes.
            logits: of the shortlist behind each node, [Q, C] float32.
            path: the nodes that were right.
        """
        in_front = logits[[0, *(nodes[-2] for nodes in tree.paths[1:])]]
        in_front[0] = self._in_front
        places = [self._place(column) for column in tree.columns]
        # Of several nodes with one item the last is written last, so the likeliest has to be.
        self._changes[places[::-1]] = SHRINKAGE * (logits - in_front)[::-1]
        self._in_front = logits[path[-1]]

    def _place(self, column: int) -> int:
        return self._places.get(column, self._others)
