from __future__ import annotations

import pytest

from gptrec_rl.errors import InputError
from gptrec_rl.fleet.cores import VALIDATOR_NICENESS, require_few_enough, share_cores


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


@pytest.mark.parametrize(("n_generators", "n_cores", "said"), [(9, 2, "2 cores can feed; ask for 8"), (5, 1, "1 core")])
def test_more_generators_than_a_machine_can_feed_are_refused(n_generators: int, n_cores: int, said: str) -> None:
    require_few_enough(n_generators - 1, n_cores)
    with pytest.raises(InputError, match=f"{n_generators} generators are more than {said}"):
        require_few_enough(n_generators, n_cores)
