from __future__ import annotations

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.fleet.cores import VALIDATOR_NICENESS, share_cores


@pytest.mark.parametrize(
    ("n_generators", "cores", "on_gpu", "generators", "optimiser", "optimiser_threads", "validator"),
    [
        (1, [0, 1], False, [0], (1,), 1, (0,)),
        (1, [0, 1, 2, 3], False, [0], (1, 2, 3), 3, (0,)),
        (2, [4, 5, 6, 7], False, [4, 5], (6, 7), 2, (4, 5)),
        (3, [0, 1, 2, 3], False, [0, 1, 2], (3,), 1, (0, 1, 2)),
        (5, [0, 1, 2], False, [0, 1, 0, 1, 0], (2,), 1, (0, 1)),
        (2, [3], False, [3, 3], (3,), 1, (3,)),
        (2, [0, 1, 2, 3], True, [0, 1], (2, 3), 1, (0, 1)),
    ],
)
def test_each_generator_gets_a_core_and_the_optimiser_the_rest(
    n_generators: int,
    cores: list[int],
    on_gpu: bool,
    generators: list[int],
    optimiser: tuple[int, ...],
    optimiser_threads: int,
    validator: tuple[int, ...],
) -> None:
    plan = share_cores(n_generators, cores, on_gpu)
    assert [share.cores for share in plan.generators] == [(core,) for core in generators]
    assert {share.n_threads for share in plan.generators} == {1}
    assert (plan.optimiser.cores, plan.optimiser.n_threads) == (optimiser, optimiser_threads)
    assert (plan.validator.cores, plan.validator.n_threads) == (validator, 1)
    assert plan.validator.niceness == VALIDATOR_NICENESS > plan.optimiser.niceness == 0


def test_a_fleet_without_generators_is_refused() -> None:
    with pytest.raises(InputError, match="0 generators"):
        share_cores(0, [0, 1], False)
