"""Trees of guesses: which are tried, and which turn out right."""

from __future__ import annotations

import numpy as np
import pytest

from gptrec_rl.decoding.guessing import Tree

EIGHT = np.arange(8) + 10  # a shortlist: column 10 + i stands at i


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def ways(tree: Tree) -> list[list[int]]:
    """Return the columns along the path of each node."""
    return [[tree.columns[node] for node in path] for path in tree.paths]


def test_the_likeliest_chain_is_guessed_first() -> None:
    same = [0.0, 9.0, 2.0, 7.0, 1.0, 8.0, 0.0, 0.0]
    tree = Tree.guess([11], EIGHT, logits(same, same, same), 3)
    assert ways(tree) == [[11], [11, 15], [11, 15, 13]]


def test_uncertain_places_are_guessed_in_several_ways() -> None:
    same = [0.0, 9.0, 7.99, 8.0, -99.0, -99.0, -99.0, -99.0]
    tree = Tree.guess([11], EIGHT, logits(same, same, same), 5)
    assert sorted(ways(tree)) == [[11], [11, 12], [11, 12, 13], [11, 13], [11, 13, 12]]


def test_behind_a_corrected_item_comes_what_was_likely_there() -> None:
    likely_second = [-np.inf, 0.0, 9.0, 8.0, 0.0, 0.0, 0.0, 0.0]  # guessed were 13, 14; 12 came instead of 13
    likely_third = [-np.inf, 4.0, 7.0, 0.0, 6.0, 0.0, 0.0, 0.0]
    tree = Tree.guess([10, 12], EIGHT, logits(likely_second, likely_third), 2)
    assert ways(tree) == [[12], [12, 13]]


def test_no_path_holds_an_item_twice_or_one_that_may_not_stand() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 8)).astype(np.float32)
    scores[:, 6] = -np.inf
    tree = Tree.guess([10, 11], EIGHT, scores, 8)
    assert len(tree.columns) == 8
    for way in ways(tree):
        assert len(way) <= 5
        assert len(set(way)) == len(way)
        assert not {10, 16} & set(way)


def test_fewer_items_than_nodes_make_a_smaller_tree() -> None:
    scores = logits([-np.inf] * 6 + [1.0, 2.0], [-np.inf] * 6 + [1.0, 2.0], [-np.inf] * 6 + [1.0, 2.0])
    assert sorted(ways(Tree.guess([12], EIGHT, scores, 8))) == [[12], [12, 16], [12, 16, 17], [12, 17], [12, 17, 16]]


def test_behind_the_last_place_but_one_nothing_is_guessed() -> None:
    assert ways(Tree.guess([11], EIGHT, logits([0.0] * 8), 4)) == [[11]]


@pytest.mark.parametrize(
    ("best", "path"), [([5, 0, 0, 0], [0]), ([7, 5, 0, 0], [0, 2]), ([6, 8, 0, 1], [0, 1, 3]), ([6, 9, 8, 0], [0, 1])]
)
def test_the_right_path_ends_where_the_best_item_was_not_guessed(best: list[int], path: list[int]) -> None:
    tree = Tree(4)
    assert [tree.add(0, 6), tree.add(0, 7), tree.add(1, 8)] == [1, 2, 3]
    assert tree.check(best) == path


def test_a_path_goes_on_along_its_longest_branch() -> None:
    tree = Tree(4)
    for parent, column in ((0, 6), (0, 7), (1, 8), (1, 9), (2, 5)):
        tree.add(parent, column)
    assert tree.longest([0]) == tree.longest([0, 1]) == [0, 1, 3]
    assert tree.longest([0, 2]) == [0, 2, 5]
    assert tree.longest([0, 1, 4]) == [0, 1, 4]
