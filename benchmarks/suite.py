"""The table: what is compared with what, on how many cores, and what it has to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import accuracy, fleet, ways, work
from benchmarks.figures import Figure, unmeasured
from benchmarks.measure import Way
from benchmarks.rows import Alone, Race, Setting, Statistic, promptness, rate

Benchmark = Callable[[Setting], Sequence[Figure]]

N_HISTORIES, N_LISTS = 16, 8
"""Of a batch of the fleet; what is compared without groups has as many lists, each of a history of its own."""


LATENCY_CALLS, PLAIN_LATENCY_CALLS = 300, 100
"""A 99th percentile of fewer calls is the slowest one."""
ACTIVATIONS = {"gelu_new": "", "gelu": ", plain with the exact GELU"}
"""Of the plain ways: GPT-2's own, which transformers computes step by step, and that of this library's models."""


def generation_of_groups(setting: Setting) -> Sequence[Figure]:
    """A generator's batch against one list after the other."""
    histories = work.full_histories(N_HISTORIES)
    ours = Way(ways.generation, (histories, N_LISTS), calls=3)
    name = "generation, 8 lists a history (a)"
    return [
        figure
        for activation, remark in ACTIVATIONS.items()
        for plain in [Way(ways.plain_generation, (histories, activation), calls=4)]
        for figure in _race(setting, ours, plain, 1, f"{name}{remark}", 200, "lists/s", is_binding=not remark)
    ]


def generation_of_singles(setting: Setting) -> Sequence[Figure]:
    """A list a history against a batch with the network's own cache."""
    histories = work.full_histories(N_HISTORIES * N_LISTS)
    ours = Way(ways.generation, (histories, 1))
    name = "generation, 1 list a history (a), against cached"
    return [
        figure
        for activation, remark in ACTIVATIONS.items()
        for cached in [Way(ways.cached_generation, (histories, activation))]
        for figure in _race(setting, ours, cached, 1, f"{name}{remark}", 2, "lists/s", is_binding=not remark)
    ]


def generation_for_short_histories(setting: Setting) -> Sequence[Figure]:
    """The same, where the batch is padded for the sake of one long history."""
    histories = work.steam_like_histories(N_HISTORIES * N_LISTS)
    ours, cached = Way(ways.generation, (histories, 1), calls=2), Way(ways.cached_generation, (histories,))
    return _race(setting, ours, cached, 1, "generation, 1 list a history (c), against cached", 5, "lists/s")


def latency(setting: Setting) -> Sequence[Figure]:
    """One list for one user who waits for it; how soon a guess is right depends on what the policy has learned."""
    policy = "untrained" if setting.data is None or setting.student is None else "trained student"
    work_of_both = (setting.data, setting.student)
    race = Race(
        (
            Way(ways.single_list, work_of_both, calls=LATENCY_CALLS),
            Way(ways.plain_single_list, work_of_both, calls=PLAIN_LATENCY_CALLS),
        ),
        n_cores=1,
        statistics=(
            Statistic(f"latency of one list (a), median, {policy}", 15, promptness(50), "lists/s"),
            Statistic(f"latency of one list (a), 99th percentile, {policy}", 15, promptness(99), "lists/s"),
        ),
    )
    return race.run(setting)


def update(setting: Setting) -> Sequence[Figure]:
    """One gradient step of policy and value model on 128 lists."""
    rollout = work.rollout(work.full_histories(N_HISTORIES), N_LISTS)
    ours, plain = Way(ways.update, (rollout,), calls=4), Way(ways.plain_update, (rollout,))
    return _race(setting, ours, plain, 2, "update, 16 x 8 lists (a)", 25, "updates/s")


def update_for_short_histories(setting: Setting) -> Sequence[Figure]:
    """The same, where the plain batch is padded for the sake of one long history."""
    rollout = work.rollout(work.steam_like_histories(N_HISTORIES), N_LISTS)
    ours, plain = Way(ways.update, (rollout,), calls=8), Way(ways.plain_update, (rollout,))
    return _race(setting, ours, plain, 2, "update, 16 x 8 lists (c)", 60, "updates/s")


def stage_1(setting: Setting) -> Sequence[Figure]:
    """Steps of stage 1 with batches of 128 examples; both include the teacher."""
    ours, plain = Way(ways.stage_1, (setting.data,)), Way(ways.plain_stage_1, (setting.data,))
    return _race(setting, ours, plain, 2, f"stage 1 ({setting.cuts})", 8, "examples/s")


def teacher(setting: Setting) -> Sequence[Figure]:
    """Lists of the Markov chain for the batches of stage 1."""
    way = Way(ways.teacher_lists, (setting.data,), calls=8)
    name = f"lists of the Markov chain, one core ({setting.cuts})"
    return Alone(name, way, 1, rate, "lists/s", "at least", 5000, n_rounds=5).run(setting)


def evaluation(setting: Setting) -> Sequence[Figure]:
    """All test users with all metrics."""
    name = "evaluation of 6,040 test users with metrics, two threads"
    if setting.data is None:
        return [unmeasured(name, "s", "at most", 60, "MovieLens-1M is absent")]
    way = Way(ways.evaluation, (setting.data,))
    return Alone(name, way, 2, lambda turn: sum(turn.seconds), "s", "at most", 60, n_rounds=1).run(setting)


def _race(
    setting: Setting,
    ours: Way,
    plain: Way,
    n_cores: int,
    name: str,
    at_least: float,
    unit: str,
    is_binding: bool = True,
) -> Sequence[Figure]:
    threads = f"{n_cores} thread{'s' * (n_cores > 1)}"
    return Race((ours, plain), n_cores, [Statistic(f"{name}, {threads}", at_least, rate, unit, is_binding)]).run(
        setting
    )


SUITE: dict[str, Benchmark] = {
    "generation-groups": generation_of_groups,
    "generation-singles": generation_of_singles,
    "generation-short": generation_for_short_histories,
    "latency": latency,
    "update": update,
    "update-short": update_for_short_histories,
    "evaluation": evaluation,
    "stage-1": stage_1,
    "teacher": teacher,
    "scaling": fleet.scaling,
    "start-up": fleet.start_up,
    "waiting": fleet.waiting,
    "exactness": accuracy.exactness,
    "ndcg": accuracy.ndcg,
}
