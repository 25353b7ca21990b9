"""Next-K: the list is written item by item (section 3.1, equations 3 and 4), each item knowing those before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from gptrec_rl.config import Precision
from gptrec_rl.data import Histories
from gptrec_rl.decoding.guessing import GUESSES, Guesser
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.models.backbone import Branches, Encoded
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.models.product import Product
from gptrec_rl.models.sequence import parts_of
from gptrec_rl.models.work_sizes import work_sizes_of
from gptrec_rl.recommender import HistoriesLike, Slates, candidates

BLOCK = 64
"""Sampling looks for an item among the sums of so many items, then among these."""


@dataclass(frozen=True)
class Generation:
    """G lists for each of B histories.

    Attributes:
        items: [B, G, K] int64.
        log_probs: of each item under the masked distribution it was chosen from, [B, G, K] float32.
    """

    items: torch.Tensor
    log_probs: torch.Tensor


class Writer:
    """Writes lists with a policy whose weights stay as they are; to be made anew when they have changed.

    Args:
        policy: the model; its training mode is the caller's business (eval mode has no dropout).
        precision: of the matrix products; logits and softmax are fp32.

    Attributes:
        slate_length: K at most.
    """

    @torch.inference_mode()
    def __init__(self, policy: GPTRec, precision: Precision = "fp32") -> None:
        self.slate_length = policy.slate_length
        self._policy = policy
        self._backbone = policy.backbone(product_dtype(precision, policy.device, policy.width))
        self._n_columns = policy.n_items + -policy.n_items % BLOCK  # I + spare
        padded = functional.pad(policy.item_weights, (0, 0, 0, self._n_columns - policy.n_items))
        self._head = Product(None, padded.T)  # [S, D] -> [S, I + spare]

    @torch.inference_mode()
    def write(
        self,
        histories: Histories,
        k: int,
        n_lists: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        allowed: np.ndarray | None = None,
    ) -> Generation:
        """Write G lists behind each history, which is run once.

        Args:
            histories: B whole histories; the model reads the last n items, the mask knows all.
            k: length of the lists, at most the policy's `slate_length`.
            n_lists: G.
            temperature: divides the logits before the softmax, > 0.
            generator: source of the samples, on the policy's device; None takes the most probable item at each place,
                of equally probable ones that with the smaller id.
            allowed: [I] or [B, I] bool, column i - 1 says whether item i may be recommended.

        Raises:
            InputError: K is longer than the policy's lists, a history leaves fewer than K items, or K, G or the
                temperature is not above 0.
        """
        policy = self._policy
        if k < 1 or n_lists < 1 or not 0 < temperature < math.inf:
            raise InputError(
                f"K = {k}, {n_lists} lists a history and temperature {temperature:g} don't make lists; all three have "
                "to be above 0, and finite"
            )
        if k > self.slate_length:
            raise InputError(
                f"K = {k} is longer than the lists of {self.slate_length} items that this model was trained to "
                "write; ask for fewer items or train with a longer model.slate_length"
            )
        may = candidates(histories, policy.n_items, k, allowed)
        shape = (len(histories), n_lists, k)
        items = torch.empty(shape, dtype=torch.int64, device=policy.device)
        log_probs = torch.empty(shape, device=policy.device)
        lengths = np.minimum(histories.lengths, policy.history_length)
        sizes = work_sizes_of(policy.device)
        parts = parts_of(lengths + 1, sizes, n_scores=n_lists * policy.n_items)
        n_rows = min(sizes.lists_together, sizes.scores_per_part // policy.n_items) // n_lists
        for together in _together(parts, n_rows):
            encoded = Encoded.of([self._backbone.encode(policy.lay_out(histories.take(part))) for part in together])
            rows = np.concatenate(together)
            taken = self.taken(may[rows])
            if generator is None and len(rows) == 1:
                items[rows], log_probs[rows] = self._guess_and_check(encoded, taken, k, temperature)
            else:
                items[rows], log_probs[rows] = self._in_turn(encoded, taken, k, n_lists, temperature, generator)
        return Generation(items, log_probs)

    def _in_turn(
        self,
        encoded: Encoded,
        taken: torch.Tensor,
        k: int,
        n_lists: int,
        temperature: float,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one item after the other; items and log-probabilities, both [b, G, K]."""
        branches = Branches(self._backbone, encoded, n_lists, n_lists * (k - 1))
        own = torch.eye(n_lists, dtype=torch.bool, device=taken.device).repeat(1, k - 1)  # [G, (K - 1) G]
        chosen, log_prob = self.choose(encoded.states, taken, temperature, n_lists, generator)
        items, log_probs = [chosen], [log_prob]
        taken = taken.repeat_interleave(n_lists, dim=0)
        for place in range(k - 1):
            taken.scatter_(-1, chosen.view(-1, 1) - 1, float("-inf"))
            sees = own[:, : n_lists * (place + 1)]
            states = branches.append(chosen.view(-1, n_lists), self._policy.positions(place, place + 1), sees)
            chosen, log_prob = self.choose(states.flatten(0, 1), taken, temperature, 1, generator)
            items.append(chosen.view(-1, n_lists))
            log_probs.append(log_prob.view(-1, n_lists))
        return torch.stack(items, dim=-1), torch.stack(log_probs, dim=-1)

    def _guess_and_check(
        self, encoded: Encoded, taken: torch.Tensor, k: int, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the most probable list of one history in fewer passes; items and log-probabilities, both [K].

        One item takes as long as some, because the weights have to be read. So what follows is guessed, and one pass
        tells what follows each of the guesses: where they were right the list goes on, up to one item more than was
        guessed. At the latest after K - 1 passes, mostly after a third of them, the list is there, and it is the one
        that is written item by item.
        """
        n_guesses, first = GUESSES[self._backbone.dtype], self._policy.positions(0, 1)
        branches = Branches(self._backbone, encoded, n_guesses, n_guesses * (k - 1))
        behind = self._logits(encoded.states, taken, temperature).cpu().numpy()  # [1, I + spare]
        right, exact, guesser = [int(behind.argmax())], [behind], Guesser(behind[0])
        kept: list[int] = []  # which of the tokens that were run are right
        n_run = 0
        while (n := len(right)) < k:
            tree = guesser.guess(right, k - 1 - n, n_guesses)
            depths = np.array([len(path) for path in tree.paths])
            nodes = np.repeat(np.arange(len(tree.paths)), depths)
            on_path = np.array([node for path in tree.paths for node in path])  # of each node its path, one by one
            columns = np.array(tree.columns)
            sees = np.zeros((len(tree.paths), n_run + len(tree.paths)), dtype=bool)
            sees[:, kept] = sees[nodes, n_run + on_path] = True
            items, places, opened = (
                torch.from_numpy(array).to(taken.device) for array in (columns + 1, n - 2 + depths, sees)
            )
            states = branches.append(items[None], first + places, opened)[0]
            behind = self._logits(states, taken, temperature).cpu().numpy()  # [Q, I + spare]
            of_shortlist = behind[:, guesser.shortlist]
            behind[:, right] = behind[nodes, columns[on_path]] = -np.inf
            best = behind.argmax(axis=-1).tolist()
            path = tree.check(best)
            guesser.learn(tree, of_shortlist, path)
            right += [best[node] for node in path]
            exact.append(behind[path])
            kept += [n_run + node for node in path]
            n_run += len(tree.paths)
        log_probs = torch.from_numpy(np.concatenate(exact)).log_softmax(dim=-1)  # [K, I + spare]
        chosen = torch.from_numpy(np.array(right))
        return (chosen + 1).to(taken.device), log_probs.gather(-1, chosen[:, None])[:, 0].to(taken.device)

    def taken(self, may: np.ndarray) -> torch.Tensor:
        """Return minus infinity at what may not be recommended and 0 elsewhere, [b, I + spare]."""
        taken = torch.full((len(may), self._n_columns), float("-inf"), device=self._policy.device)
        taken[:, : may.shape[1]].masked_fill_(torch.from_numpy(may).to(taken.device), 0.0)
        return taken

    def _logits(self, states: torch.Tensor, taken: torch.Tensor, temperature: float) -> torch.Tensor:
        """[S, D] and [S, I + spare] -> [S, I + spare] float32."""
        logits = self._head(states).add_(taken)
        return logits if temperature == 1 else logits / temperature

    def choose(
        self,
        states: torch.Tensor,
        taken: torch.Tensor,
        temperature: float,
        n: int,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose n items at each of S places from states [S, D], where `taken` [S, I + spare] allows it.

        Returns:
            items and their log-probabilities, both [S, n].
        """
        logits = self._logits(states, taken, temperature)
        if generator is None:
            columns = logits.argmax(dim=-1, keepdim=True).expand(-1, n)
            log_probs = logits.log_softmax(dim=-1).gather(-1, columns)
        else:
            probabilities = logits.softmax(dim=-1)
            columns = _sample(probabilities, n, generator)
            log_probs = probabilities.gather(-1, columns).log()
        return columns + 1, log_probs


def _together(parts: Iterable[np.ndarray], n_rows: int) -> Iterator[list[np.ndarray]]:
    """Put consecutive parts together that have so many rows at most; a part that has more stays alone."""
    together: list[np.ndarray] = []
    for part in parts:
        if together and sum(map(len, together)) + len(part) > n_rows:
            yield together
            together = []
        together.append(part)
    if together:
        yield together


def _sample(probabilities: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw n columns of each row of [S, blocks x BLOCK], [S, n]: first the block, then the place there.

    `torch.multinomial` draws a random number a column, which takes longer than the whole network.
    """
    blocks = probabilities.unflatten(-1, (-1, BLOCK))
    until = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)  # [S, blocks]
    if not bool((until[:, -1] > 0).all()):  # nor is NaN
        raise DivergedError(
            "the policy gives items no probabilities (they are not finite): it has diverged; go on from an earlier one "
            "with a smaller ppo.policy_learning_rate"
        )
    uniform = torch.rand(len(until), n, dtype=torch.float64, generator=generator, device=until.device)
    level = uniform * until[:, -1:]
    block = _first_above(until, level)
    rest = level - functional.pad(until, (1, 0)).gather(-1, block)
    inner = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK)).cumsum(dim=-1, dtype=torch.float64)
    return block * BLOCK + _first_above(inner, rest[:, :, None]).squeeze(-1)


def _first_above(until: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return the first place of cumulative sums above each level, at most the last place that adds something.

    Args:
        until: [..., C].
        level: [..., n].
    """
    total = until[..., -1:]
    return torch.searchsorted(until, torch.minimum(level, total.nextafter(torch.zeros_like(total))), right=True)


def generate(
    policy: GPTRec,
    histories: Histories,
    k: int,
    n_lists: int = 1,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    allowed: np.ndarray | None = None,
    precision: Precision = "fp32",
) -> Generation:
    """Write lists with a policy once; see `Writer`."""
    return Writer(policy, precision).write(histories, k, n_lists, temperature, generator, allowed)


class NextK:
    """A GPTRec policy as a recommender that writes greedily; the scores are log-probabilities. See `Writer`."""

    def __init__(self, policy: GPTRec, precision: Precision = "auto") -> None:
        self._writer = Writer(policy.eval(), precision)

    def recommend(self, histories: HistoriesLike, k: int, allowed: np.ndarray | None = None) -> Slates:
        """Write one list a history; see `Recommender`."""
        written = self._writer.write(Histories.of(histories), k, allowed=allowed)
        return Slates(written.items[:, 0].cpu().numpy(), written.log_probs[:, 0].cpu().numpy())
