"""The leave-one-out split (section 4.3): the one object that teachers, models, rewards and metrics are fed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gptrec_rl.data.catalogue import Catalogue, content_hash
from gptrec_rl.data.histories import Histories, item_numbers
from gptrec_rl.data.interactions import Interactions
from gptrec_rl.errors import InputError
from gptrec_rl.settings import Count, Seed, Settings

VALIDATION_USERS = 512
SPLIT_SEED = 42


class SplitConfig(Settings):
    """The leave-one-out split (section 4.3)."""

    validation_users: Count | None = None
    """V; None: 512, or a quarter of the users where that is less. The paper's text says 128, its code 512."""
    seed: Seed = SPLIT_SEED


@dataclass(frozen=True)
class Cases:
    """Users to be asked for one held-out item: their histories and that item, [B] int64."""

    users: np.ndarray
    histories: Histories
    ground_truth: np.ndarray

    def take(self, rows: np.ndarray) -> Cases:
        """Return some of the cases, by their rows."""
        return Cases(self.users[rows], self.histories.take(rows), self.ground_truth[rows])

    def sample(self, n: int, seed: int) -> Cases:
        """Draw n of the cases, in their order; all of them where there are no more."""
        rows = np.random.default_rng(seed).choice(len(self.users), min(n, len(self.users)), replace=False)
        return self.take(np.sort(rows))

    def with_room(self, k: int, n_items: int) -> Cases:
        """Return the cases whose histories leave at least K of I items to recommend."""
        return self.take(np.flatnonzero(n_items - self.histories.lengths >= k))

    def __post_init__(self) -> None:
        item_numbers(self.ground_truth)
        if not len(self.users) == len(self.histories) == len(self.ground_truth):
            raise InputError(
                f"{len(self.users)} users, {len(self.histories)} histories and {len(self.ground_truth)} held-out items "
                "are no cases; give one of each a user"
            )


@dataclass(frozen=True)
class Split:
    """Everybody's last item is the test item; V users' second-last is the validation item.

    Attributes:
        interactions: the data.
        validation_users: rows of the V users, sorted, [V] int64.
    """

    interactions: Interactions
    validation_users: np.ndarray

    @classmethod
    def of(cls, interactions: Interactions, config: SplitConfig | None = None) -> Split:
        """Split interactions as a configuration says, the default one if none is given: the only way to make a split.

        The validation users are drawn from those with at least 3 interactions.

        Raises:
            InputError: a user has fewer than 2 interactions, or too few users have 3.
        """
        config = config or SplitConfig()
        lengths = interactions.histories.lengths
        short = np.flatnonzero(lengths < 2)
        if len(short):
            raise InputError(
                f"user '{interactions.user_ids[short[0]]}' has {lengths[short[0]]} interaction(s) and the split needs "
                f"2 of each ({len(short)} such users); prepare the data with --min-user-interactions 2 or more"
            )
        candidates = np.flatnonzero(lengths >= 3)
        n_validation_users = config.validation_users
        if n_validation_users is None:
            n_validation_users = min(VALIDATION_USERS, len(candidates) // 4)
        if not 0 < n_validation_users < len(candidates):
            raise InputError(
                f"{n_validation_users} validation users can't be drawn from {len(candidates)} users with 3 or more "
                "interactions, leaving some to train on; set split.validation_users (--validation-users) between 1 and "
                f"{len(candidates) - 1}"
            )
        drawn = np.random.default_rng(config.seed).choice(candidates, n_validation_users, replace=False)
        return cls(interactions, np.sort(drawn).astype(np.int64))

    @classmethod
    def leave_one_out(
        cls, interactions: Interactions, n_validation_users: int | None = None, seed: int = SPLIT_SEED
    ) -> Split:
        """Return what `of` does: its earlier name, for scripts that use it."""
        return cls.of(interactions, SplitConfig(validation_users=n_validation_users, seed=seed))

    @property
    def catalogue(self) -> Catalogue:
        """The items."""
        return self.interactions.catalogue

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the interactions and the choice of validation users."""
        return content_hash(
            {"interactions": np.array(self.interactions.hash), "validation_users": self.validation_users}
        )

    def require_room(self, k: int) -> None:
        """Refuse data in which a history leaves fewer than K items to recommend.

        Raises:
            InputError: names the user with the longest history.
        """
        lengths = self.interactions.histories.lengths - 1  # the last item is only ever asked for
        longest = int(lengths.argmax())
        left = self.catalogue.n_items - int(lengths[longest])
        if left < k:
            raise InputError(
                f"lists of K = {k} items can't be made for user {str(self.interactions.user_ids[longest])!r}, whose "
                f"history leaves {left} of {self.catalogue.n_items} items; set a smaller model.slate_length if the "
                "lists are a policy's, or prepare the data without such users"
            )

    @cached_property
    def training(self) -> Histories:
        """What may be trained on: all users' histories without test and validation items, [U] histories."""
        held_out = np.ones(self.interactions.n_users, dtype=np.int64)
        held_out[self.validation_users] = 2
        return self.interactions.histories.without_last(held_out)

    @cached_property
    def training_users(self) -> np.ndarray:
        """Rows of the users whose cuts are training examples: those without a validation item."""
        return np.setdiff1d(np.arange(self.interactions.n_users), self.validation_users)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Share of the training interactions that each item has, [I] float64, summing to 1."""
        counts = np.bincount(self.training.values, minlength=self.catalogue.n_items + 1)[1:]
        return np.asarray(counts / counts.sum())

    @cached_property
    def n_users_of_item(self) -> np.ndarray:
        """How many users have each item in training, [I] int64."""
        n_items = self.catalogue.n_items
        return np.bincount(self.training.pairs(n_items) % (n_items + 1), minlength=n_items + 1)[1:]

    @cached_property
    def validation(self) -> Cases:
        """The validation users, asked for their second-last item."""
        return self._cases(self.validation_users, held_out=2)

    @cached_property
    def test(self) -> Cases:
        """All users, asked for their last item."""
        return self._cases(np.arange(self.interactions.n_users), held_out=1)

    def _cases(self, users: np.ndarray, held_out: int) -> Cases:
        histories = self.interactions.histories
        ground_truth = histories.values[histories.offsets[1:][users] - held_out].astype(np.int64)
        return Cases(users, histories.take(users).without_last(held_out), ground_truth)
