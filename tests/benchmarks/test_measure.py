"""The harness on work that costs nothing: turns, ratios, and children that fail or die."""

from __future__ import annotations

import os
from functools import partial

import pytest

from benchmarks import rows
from benchmarks.measure import Child, Contest, Round, Way, contest
from benchmarks.rows import Alone, Race, Setting, Statistic, promptness, rate

SETTING = Setting(data=None, student=None, cores=sorted(os.sched_getaffinity(0))[:1], rounds=3)
THREE = Way(partial, (int, "3"), calls=2)  # builds a function that returns 3
FAILING = Way(partial, (int, "three"))
DYING = Way(partial, (os._exit, 7))


def test_ways_take_turns_in_processes_of_their_own():
    result = contest([THREE, Way(partial, (os.getpid,))], SETTING.cores, 3)
    assert [turn.results for turn in result.rounds[0]] == [[3, 3]] * 3
    pids = {turn.results[0] for turn in result.rounds[1]}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert min(result.peak_memory) > 5


def test_a_child_is_pinned_and_has_a_thread_a_core():
    with Child(Way(partial, (os.sched_getaffinity, 0)), SETTING.cores) as child:
        assert child.round().results == [set(SETTING.cores)]
    with Child(Way(partial, (os.getenv, "OMP_NUM_THREADS")), SETTING.cores) as child:
        assert child.round().results == ["1"]


@pytest.mark.parametrize(("way", "said"), [(FAILING, "ValueError: invalid literal"), (DYING, "exit code 7")])
def test_a_child_that_fails_or_dies_gives_a_row_that_says_so(way, said):
    statistic = Statistic("work", 2, rate, "lists/s")
    (figure,) = Race((THREE, way), 1, [statistic]).run(SETTING)
    assert (figure.value, figure.verdict) == (None, "-")
    assert said in figure.notes


@pytest.mark.parametrize(
    ("has_bf16", "is_binding", "verdict"),
    [(True, True, "yes"), (True, False, "report only"), (False, True, "report only")],
)
def test_ratios_are_taken_round_by_round(has_bf16, is_binding, verdict, monkeypatch):
    monkeypatch.setattr(rows, "has_bf16", lambda device: has_bf16)
    ours = [Round([1.0, 1.0], [8, 8]), Round([1.0], [6]), Round([2.0], [20])]  # 8, 6 and 10 a second
    plain = [Round([1.0], [2]), Round([1.0], [1]), Round([1.0], [2])]  # ratios 4, 6, 5
    figure = Statistic("work", 5, rate, "lists/s", is_binding).figure(Contest([ours, plain], [10.0, 20.0]))
    assert (figure.value, figure.low, figure.high, figure.verdict) == (5, 4, 6, verdict)
    assert figure.notes == "8 against 2 lists/s; peak 10 and 20 MB"


def test_promptness_is_about_the_slow_calls():
    turn = Round([0.1] * 99 + [0.5], [1] * 100)
    assert promptness(50)(turn) == pytest.approx(10)
    assert promptness(100)(turn) == pytest.approx(2)


def test_a_row_of_more_cores_than_there_are_is_not_measured():
    setting, way = Setting(None, None, [0], 1), Way(partial(pytest.fail, "nothing is to be built"))
    alone = Alone("evaluation, two threads", way, 2, rate, "s", "at most", 60, 1).run(setting)
    race = Race((way, way), 2, [Statistic("update, 2 threads", 25, rate, "updates/s")]).run(setting)
    for (figure,) in (alone, race):
        assert (figure.value, figure.verdict, figure.notes) == (None, "-", "not measured: this process may use 1 core")


def test_a_way_alone_meets_a_bound_by_its_median():
    (figure,) = Alone("work", THREE, 1, lambda turn: sum(turn.results), "", "at most", 5, n_rounds=2).run(SETTING)
    assert (figure.value, figure.verdict) == (6, "no")
