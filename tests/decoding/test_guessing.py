"""Trees of guesses: which are tried, and which turn out right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gptrec_rl.decoding.guessing import SHARPNESS, SHORTLIST, Guesser, Tree

WORSE = -99.0  # than all that is guessed


def logits(**columns: float) -> np.ndarray:
    """Return the logits of 64 columns, `a` standing for the first."""
    rest = np.full(SHORTLIST, -np.inf, dtype=np.float32)
    for name, logit in columns.items():
        rest[ord(name) - ord("a")] = logit
    return rest


def ways(tree: Tree) -> list[str]:
    """Return the columns along the path of each node."""
    return ["".join(chr(ord("a") + tree.columns[node]) for node in path) for path in tree.paths]


def learn(guesser: Guesser, tree: Tree, path: list[int], **behind: np.ndarray) -> None:
    """Let a guesser know the logits behind each node, by its way."""
    rows = np.stack([behind[way] for way in ways(tree)])
    guesser.learn(tree, rows[:, guesser.shortlist], path)


def test_the_likeliest_chain_is_guessed_first() -> None:
    guesser = Guesser(logits(a=0, b=9, c=2, d=7, e=1, f=8))
    assert ways(guesser.guess([1], 3, 3)) == ["b", "bf", "bfd"]


def test_uncertain_places_are_guessed_in_several_ways() -> None:
    guesser = Guesser(logits(b=9, c=7.99, d=8, e=WORSE, f=WORSE))
    assert sorted(ways(guesser.guess([1], 3, 5))) == ["b", "bc", "bcd", "bd", "bdc"]


def test_the_likeliest_paths_are_those_of_a_softmax() -> None:
    scores = {"b": 0.0, "c": -0.1, "d": -0.2, "e": -0.3}
    guesser = Guesser(logits(a=1, **scores))

    def chance(way: str) -> float:
        left, product = {**scores}, 1.0
        for name in way:
            weights = {other: np.exp(SHARPNESS * logit) for other, logit in left.items()}
            product *= weights[name] / sum(weights.values())
            del left[name]
        return product

    every = [way for n in (1, 2) for way in map("".join, itertools.permutations("bcde", n))]
    likeliest = sorted(every, key=chance)[-6:]
    assert sorted(ways(guesser.guess([0], 2, 7))) == sorted(["a", *("a" + way for way in likeliest)])


def test_what_an_item_changed_is_expected_of_it_again_in_part() -> None:
    for after_b, third in ((3.0, "e"), (4.2, "e"), (4.7, "d")):  # halves are expected: 3, 3.6, 3.85
        first, behind_b = logits(a=9, b=5, c=4, d=3, e=3.7), logits(a=9, b=5, c=4, d=after_b, e=3.7)
        guesser = Guesser(first)
        tree = guesser.guess([0], 2, 3)
        assert ways(tree) == ["a", "ab", "abc"]
        learn(guesser, tree, [0], a=first, ab=behind_b, abc=behind_b)  # c was right, rather than b
        assert ways(guesser.guess([0, 2], 2, 3)) == ["c", "cb", "cb" + third]


def test_guesses_go_on_from_the_logits_in_front_of_the_last_right_item() -> None:
    guesser = Guesser(first := logits(a=9, b=5, c=4, d=3, e=2))
    tree = guesser.guess([0], 3, 3)
    learn(guesser, tree, [0, 1], a=first, ab=logits(a=9, b=5, c=4, d=8, e=7), abc=first)
    assert ways(guesser.guess([0, 1, 3], 1, 2)) == ["d", "de"]


def test_an_item_beside_the_shortlist_may_be_right() -> None:
    scores = np.arange(SHORTLIST + 3, dtype=np.float32)  # columns 0 to 2 are beside it
    guesser = Guesser(scores)
    tree = guesser.guess([66, 1], 2, 3)
    assert tree.columns == [1, 65, 64]
    guesser.learn(tree, np.tile(scores[guesser.shortlist], (3, 1)), [0])
    assert guesser.guess([66, 1, 2], 2, 3).columns == [2, 65, 64]


def test_no_path_holds_an_item_twice_or_one_that_may_not_stand() -> None:
    scores = dict(zip("abcdefgh", np.random.default_rng(0).normal(size=8), strict=True))
    guesser = Guesser(logits(**scores))
    for right in ([0, 1], [0, 1, 2]):
        tree = guesser.guess(right, 4, 16)
        assert len(tree.columns) == 16
        for way in ways(tree):
            assert len(way) <= 5
            assert len(set(way)) == len(way)
            assert set(way[1:]) <= set("abcdefgh") - {chr(ord("a") + column) for column in right}
        guesser.learn(tree, np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32), [0])


def test_fewer_items_than_nodes_make_a_smaller_tree() -> None:
    guesser = Guesser(logits(a=3, b=1, c=2))
    assert sorted(ways(guesser.guess([0], 5, 8))) == ["a", "ab", "abc", "ac", "acb"]
    assert ways(guesser.guess([0, 1, 2], 5, 8)) == ["c"]


def test_behind_the_last_place_but_one_nothing_is_guessed() -> None:
    assert ways(Guesser(logits(a=1, b=1)).guess([1], 0, 4)) == ["b"]


@pytest.mark.parametrize(
    ("best", "path"), [([5, 0, 0, 0], [0]), ([7, 5, 0, 0], [0, 2]), ([6, 8, 0, 1], [0, 1, 3]), ([6, 9, 8, 0], [0, 1])]
)
def test_the_right_path_ends_where_the_best_item_was_not_guessed(best: list[int], path: list[int]) -> None:
    tree = Tree(4)
    assert [tree.add(0, 6), tree.add(0, 7), tree.add(1, 8)] == [1, 2, 3]
    assert tree.check(best) == path
