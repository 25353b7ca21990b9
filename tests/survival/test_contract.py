"""docs/reliability.md, cell by cell: what befalls one role of a fleet of real processes, and what must hold after it.

All cells share one fleet, which has to get to its end after all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chaos.faults import FAULTS
from chaos.fleet import OPTIMISER, ROLES, SUPERVISOR, Fleet
from chaos.invariants import violations
from gptrec_rl.store.checkpoints import LEARNER, CheckpointStore

pytestmark = pytest.mark.integration

FAULT_S = 3.0
"""How long a fault lasts: longer than the lease of this fleet's optimiser."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as small_fleet:
        started_at = time.time()
        small_fleet.start()
        small_fleet.wait_until_it_works(ROLES, started_at)
        small_fleet.wait_until(lambda: any((small_fleet.store / LEARNER).glob("step_*")), "there is a learner state")
        yield small_fleet


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", FAULTS)
def test_steps_go_on_and_nothing_published_is_lost(fleet: Fleet, kind: str, role: str) -> None:
    if kind == "full disk" and not fleet.has_disks:
        pytest.skip("only root may mount a disk that is small enough to fill")
    before = CheckpointStore(str(fleet.store))
    published, state, best = before.latest_policy(), before.learner_states()[-1], before.best()
    assert published is not None
    cause_gone_at = FAULTS[kind](fleet, role, FAULT_S)
    fleet.wait_until_it_works(ROLES, cause_gone_at)
    with fleet.frozen():
        assert violations(fleet.run_dir, fleet.client, fleet.run_id, is_over=False) == []
        after = CheckpointStore(str(fleet.store))
        newest, best_now = after.latest_policy(), after.best()
        assert newest is not None
        assert newest.version >= published.version
        assert after.learner_states()[-1].step >= state.step
        # A resumed optimiser publishes first; one that was not killed may have saved since its last policy.
        assert newest.step >= (published.step if newest.token == published.token else state.step)
        assert best is None or (best_now is not None and best_now[1] >= best[1])
        assert newest.token == published.token or (kind.startswith("kill") and role in (OPTIMISER, SUPERVISOR))


def test_after_all_of_them_it_gets_to_its_end_and_leaves_nothing_behind(fleet: Fleet) -> None:
    fleet.finish(20)
    assert violations(fleet.run_dir, fleet.client, fleet.run_id, is_over=True) == []
