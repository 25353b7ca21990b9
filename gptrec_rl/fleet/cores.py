"""Who gets which cores of a machine: the shares of a fleet's processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptrec_rl.errors import InputError

VALIDATOR_NICENESS = 10
MOST_A_CORE = 4
"""Generators beyond which a core is shared by so many that more of them only cost memory."""


@dataclass(frozen=True)
class Share:
    """What a process gets of the machine.

    Attributes:
        cores: the cores that it may run on.
        n_threads: its numerical threads.
        niceness: 0 (as the parent) to 19 (last in the queue).
    """

    cores: tuple[int, ...]
    n_threads: int
    niceness: int = 0


@dataclass(frozen=True)
class CorePlan:
    """The shares of a fleet: one for each generator, the optimiser's and the validator's."""

    generators: tuple[Share, ...]
    optimiser: Share
    validator: Share


def require_few_enough(n_generators: int, n_cores: int) -> None:
    """Refuse more generators than a machine can feed.

    Raises:
        InputError: there would be more than `MOST_A_CORE` for each core.
    """
    most = MOST_A_CORE * n_cores
    if n_generators > most:
        cores = f"{n_cores} core{'s' * (n_cores > 1)}"
        raise InputError(f"{n_generators} generators are more than {cores} can feed; ask for {most} or fewer")


def share_cores(n_generators: int, cores: Sequence[int], optimiser_on_gpu: bool) -> CorePlan:
    """Share out a machine: a core for each generator, the rest for the optimiser, the validator in the gaps.

    Generators have one thread and one core each, and share cores when there are more of them than cores; the last
    core is the optimiser's own unless it is the only one. With a GPU the optimiser needs one thread to feed it. The
    validator has one thread of low priority on the generators' cores.

    Args:
        n_generators: at least 1.
        cores: the cores that may be used, `psutil.Process().cpu_affinity()`.
        optimiser_on_gpu: whether the optimiser computes on a GPU.

    Raises:
        InputError: no generator is asked for.
    """
    if n_generators < 1:
        raise InputError(f"a fleet of {n_generators} generators generates nothing; ask for 1 or more")
    shared = list(cores[:-1] or cores)
    pinned = tuple(shared[index % len(shared)] for index in range(n_generators))
    rest = tuple(core for core in cores if core not in pinned) or tuple(cores)
    return CorePlan(
        generators=tuple(Share((core,), 1) for core in pinned),
        optimiser=Share(rest, 1 if optimiser_on_gpu else len(rest)),
        validator=Share(tuple(sorted(set(pinned))), 1, VALIDATOR_NICENESS),
    )
