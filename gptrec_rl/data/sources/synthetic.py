"""A made-up world, the built-in data of the first run: popular items, users with taste, and items that follow items.

A Markov chain learns who follows whom; popularity alone ranks far worse; and lists of the likeliest items are of few
genres and of popular items, so that both goals of the second stage have something to change.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from gptrec_rl.data.catalogue import Catalogue
from gptrec_rl.data.histories import Histories
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.errors import InputError

GENRES = ("Adventure", "Comedy", "Crime", "Drama", "Fantasy", "Horror", "Musical", "Romance", "Thriller", "Western")
ADJECTIVES = (
    "Amber", "Broken", "Crimson", "Distant", "Electric", "Frozen", "Golden", "Hidden", "Iron", "Last",
    "Midnight", "Northern", "Paper", "Quiet", "Restless", "Silver", "Sunken", "Tidal", "Velvet", "Wandering",
)  # fmt: skip
NOUNS = (
    "Anchor", "Bridge", "Carnival", "Dream", "Engine", "Forest", "Garden", "Harbour", "Island", "Journey",
    "Lantern", "Mirror", "Orchard", "Promise", "River", "Station", "Summer", "Tower", "Voyage", "Window",
)  # fmt: skip

MIN_LENGTH = 5
N_SUCCESSORS = 4
SUCCESSOR_PROBS = (0.4, 0.3, 0.2, 0.1)
FOLLOW_PROB = 0.55
RECENCY_PROBS = (0.6, 0.25, 0.15)
SAME_GENRE_WEIGHT = 200.0
ZIPF_EXPONENT = 1.0
TASTE_CONCENTRATION = 0.1


def generate(
    n_users: int = 2000, n_items: int = 400, mean_length: float = 40.0, n_genres: int = 8, seed: int = 0
) -> Interactions:
    """Make a world; the same arguments make the same one.

    Item 1 is the most popular, with Zipf's law below it; an item has one to three genres. A user has a taste for
    genres. Each next item either follows one of the last three, each item having four successors that are mostly of
    its genre, or is drawn by taste and popularity. No history has an item twice.

    Args:
        n_users: U, at least 1.
        n_items: I, at least 4 times the mean length.
        mean_length: mean length of the histories, more than 5; the longest is half the items.
        n_genres: 1 to 10.
        seed: seed of all randomness.

    Raises:
        InputError: an argument is out of its range.
    """
    _check(n_users, n_items, mean_length, n_genres)
    random = np.random.default_rng(seed)
    log_popularity = -ZIPF_EXPONENT * np.log(np.arange(1, n_items + 1))
    main_genre = random.integers(n_genres, size=n_items)
    successors = _successors(main_genre, log_popularity, random)
    taste = random.dirichlet(np.full(n_genres, TASTE_CONCENTRATION), size=n_users)
    preference = np.log(taste + 1e-3)[:, main_genre] + log_popularity  # [U, I]
    draws = _sample_orders(preference, random)
    lengths = MIN_LENGTH + random.gamma(2.0, (mean_length - MIN_LENGTH) / 2.0, size=n_users)
    lengths = np.minimum(lengths.round().astype(np.int64), n_items // 2)
    histories = [_walk(order, successors, length, random) for order, length in zip(draws, lengths, strict=True)]
    user_ids = np.array([str(user) for user in range(1, n_users + 1)])
    return Interactions(_catalogue(main_genre, n_genres, random), user_ids, Histories.of(histories), "synthetic")


def _check(n_users: int, n_items: int, mean_length: float, n_genres: int) -> None:
    if n_users < 1:
        raise InputError(f"a world of {n_users} users is empty; ask for 1 or more")
    if not 1 <= n_genres <= len(GENRES):
        raise InputError(f"{n_genres} genres can't be made; ask for 1 to {len(GENRES)}")
    if not MIN_LENGTH < mean_length <= n_items / 4:
        raise InputError(
            f"histories of mean length {mean_length} can't be made of {n_items} items; "
            f"ask for more than {MIN_LENGTH} and at most {n_items / 4:g}, or for more items"
        )


def _sample_orders(log_weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw all items of each row one after the other, by weight and without replacement (Gumbel's trick), [R, I]."""
    return np.argsort(-(log_weights + random.gumbel(size=log_weights.shape)), axis=1)


def _successors(main_genre: np.ndarray, log_popularity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw the successors of each item, mostly of its genre and popular themselves, [I, N_SUCCESSORS]."""
    same_genre = main_genre[:, None] == main_genre[None, :]
    log_weights = np.log(np.where(same_genre, SAME_GENRE_WEIGHT, 1.0)) + 0.5 * log_popularity
    np.fill_diagonal(log_weights, -np.inf)
    return _sample_orders(log_weights, random)[:, :N_SUCCESSORS]


def _walk(order: np.ndarray, successors: np.ndarray, length: int, random: np.random.Generator) -> list[int]:
    """Return a history of item numbers: successors of recent items, and between them the user's own draws."""
    follows = random.random(length) < FOLLOW_PROB
    steps_back = random.choice(len(RECENCY_PROBS), size=length, p=RECENCY_PROBS) + 1
    choices = random.choice(N_SUCCESSORS, size=length, p=SUCCESSOR_PROBS)
    walked: dict[int, None] = {}
    recent: list[int] = []
    own_draws = iter(order.tolist())
    for follow, back, choice in zip(follows, steps_back, choices, strict=True):
        place = int(successors[recent[-back], choice]) if follow and len(recent) >= back else -1
        if place < 0 or place in walked:
            place = next(draw for draw in own_draws if draw not in walked)
        walked[place] = None
        recent.append(place)
    return [place + 1 for place in recent]


def _catalogue(main_genre: np.ndarray, n_genres: int, random: np.random.Generator) -> Catalogue:
    n_items = len(main_genre)
    genres = np.zeros((n_items, n_genres), dtype=bool)
    genres[np.arange(n_items), main_genre] = True
    n_further = random.choice(3, size=n_items, p=(0.6, 0.3, 0.1))
    for _ in range(2):
        has_more = n_further > 0
        genres[np.flatnonzero(has_more), random.integers(n_genres, size=has_more.sum())] = True
        n_further -= 1
    names = [f"The {adjective} {noun}" for adjective, noun in product(ADJECTIVES, NOUNS)]
    places = random.permutation(n_items)
    titles = [
        names[place % len(names)] + (f" {place // len(names) + 1}" if place >= len(names) else "") for place in places
    ]
    item_ids = np.array([str(item) for item in range(1, n_items + 1)])
    return Catalogue(item_ids, np.array(titles), GENRES[:n_genres], genres)
