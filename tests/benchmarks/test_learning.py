"""The comparison of ways to spend lists: what a run counts, and what becomes of the runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.learning import ARMS, Curve, Point, first_reached, learn, main, read_curves, table
from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split, SplitConfig
from gptrec_rl.data.sources import synthetic
from gptrec_rl.errors import InputError
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.store.trained_models import save_policy


@pytest.fixture(scope="module")
def world() -> Split:
    return Split.of(synthetic.generate(n_users=60, n_items=48, mean_length=12), SplitConfig(validation_users=12))


@pytest.fixture(scope="module")
def student(world: Split, make_policy: Callable[..., GPTRec]) -> GPTRec:
    return make_policy(world.catalogue.n_items, history_length=8, slate_length=4)


def config(max_reuse: int = 1, seed: int = 0) -> TuneConfig:
    """Return 4 histories x 3 lists, a policy published every 2 steps."""
    fleet = {"n_histories": 4, "n_lists": 3, "publish_every": 2, "max_reuse": max_reuse}
    return TuneConfig.model_validate(
        {"fleet": fleet, "precision": "fp32", "seed": seed, "ppo": {"policy_learning_rate": 1e-3}}
    )


def point(arm: str = "16x8-value", seed: int = 0, lists: int = 0, reward: float = 0.0, max_reuse: int = 1) -> Point:
    """Return a point of a run that needs 0.25 s of generating and 0.75 s of learning for 1,000 lists."""
    seconds = {"generation_s": lists / 4000, "learning_s": lists * 3 / 4000}
    seconds |= {f"{name.removesuffix('_s')}_wall_s": value for name, value in seconds.items()}
    return Point(
        data="world", goal="ndcg=1", learning_rate=3e-5, arm=arm, max_reuse=max_reuse, seed=seed, steps=lists // 128,
        lists_generated=lists, lists_learned=lists * max_reuse, values={"reward": reward}, **seconds,
    )  # fmt: skip


def written(path: Path, points: list[Point]) -> Path:
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in points))
    return path


def test_lists_are_learned_from_as_often_as_the_arm_says(world: Split, student: GPTRec) -> None:
    # 12 lists a batch, validated every 48 of them (2 policies of 2 batches), until 60 and the interval are complete
    points = list(learn(student, world, config(max_reuse=2), n_lists=60, validate_every=48))
    assert [each.lists_generated for each in points] == [0, 48, 96]
    assert [each.lists_learned for each in points] == [0, 96, 192]
    assert [each.steps for each in points] == [0, 8, 16]
    assert {(each.arm, each.max_reuse, each.data) for each in points} == {("4x3-group", 2, "synthetic")}


def test_seconds_grow_and_validating_is_not_among_them(
    world: Split, student: GPTRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, wall = count(), count(step=10)
    clocks = SimpleNamespace(process_time=lambda: next(processor), perf_counter=lambda: next(wall))
    monkeypatch.setattr("benchmarks.learning.time", clocks)
    points = list(learn(student, world, config(), n_lists=48, validate_every=24))
    # between the start and the end of a turn one clock goes on by 1, the other by 10: 2 turns an interval
    assert [(each.generation_s, each.learning_s, each.seconds) for each in points] == [(0, 0, 0), (2, 2, 4), (4, 4, 8)]
    assert [(each.generation_wall_s, each.learning_wall_s) for each in points] == [(0, 0), (20, 20), (40, 40)]


def test_one_seed_gives_the_same_scores_and_another_others(world: Split, student: GPTRec) -> None:
    scores = [
        [each.values for each in learn(student, world, config(seed=seed), n_lists=24, validate_every=24)]
        for seed in (0, 0, 1)
    ]
    assert scores[0] == scores[1]
    assert scores[0][0] == scores[2][0], "all start from one student"
    assert scores[0][1] != scores[2][1]
    assert {"reward", "ndcg@4", "ild@4", "npcount@4", "ndcg@4/error"} <= set(scores[0][0])


def test_all_arms_learn_from_batches_of_128_lists() -> None:
    configs = [TuneConfig.model_validate(arm) for arm in ARMS.values()]
    assert {each.fleet.n_histories * each.fleet.n_lists for each in configs} == {128}
    assert list(ARMS) == [
        f"{each.fleet.n_histories}x{each.fleet.n_lists}-{each.ppo.baseline}" for each in configs
    ]  # what a point is called


def test_seeds_of_an_arm_are_one_curve_as_far_as_all_got() -> None:
    runs = [
        [point(seed=0, lists=lists, reward=reward) for lists, reward in ((0, 0.1), (1000, 0.2), (2000, 0.6))],
        [point(seed=1, lists=lists, reward=reward) for lists, reward in ((0, 0.1), (1000, 0.4))],
    ]
    curve = Curve.of(runs)
    assert curve.lists.tolist() == [0, 1000]
    assert curve.seconds.tolist() == [0, 1]
    assert curve.generation_s.tolist() == [0, 0.25]
    assert curve.rewards.tolist() == [[0.1, 0.2], [0.1, 0.4]]


def test_smoothed_rewards_are_means_of_the_last_three() -> None:
    rewards = np.array([[0.0, 3.0, 6.0, 9.0]])
    curve = Curve("16x8-value", 1, np.arange(4), np.arange(4.0), np.arange(4.0), rewards)
    assert curve.smoothed.tolist() == [[0, 1, 3, 6]]  # (0+0+0)/3, (0+0+3)/3, (0+3+6)/3, (3+6+9)/3


def test_seeds_that_were_validated_elsewhere_are_refused() -> None:
    with pytest.raises(InputError, match="--validate-every"):
        Curve.of([[point(lists=1000)], [point(lists=2000, seed=1)]])


def test_a_level_is_reached_between_two_points_at_the_first_or_never() -> None:
    x, y = np.array([0.0, 100.0, 200.0]), np.array([1.0, 3.0, 2.0])
    assert first_reached(x, y, 2.0) == 50
    assert first_reached(x, y, 0.5) == 0
    assert np.isnan(first_reached(x, y, 3.5))


def test_the_table_says_where_each_arm_reached_the_reference() -> None:
    good = [point(lists=1000 * i, reward=r) for i, r in enumerate((0.0, 1.0, 1.0, 1.0))]
    bad = [point("128x1-value", lists=1000 * i, reward=r) for i, r in enumerate((0.0, 0.0, 0.0, 0.3))]
    lines = table([Curve.of([good]), Curve.of([bad, bad])]).splitlines()
    assert "lists until 0.9000" in lines[0]
    # smoothed: 0, 1/3, 2/3, 1: 0.9 is 0.7 of the way from 2,000 to 3,000 lists, and 1,000 lists take 1 s
    assert lines[2] == "| 16 x 8, value model | 1 | 3,000 | 1.0000 | 2,700 | 3 | 1.00 | 0.75 |"
    assert lines[3] == (
        "| 128 x 1, value model | 2 | 3,000 | 0.1000 (0.1000 to 0.1000) | not reached | not reached | 1.00 | 0.75 |"
    )


def test_arms_of_a_world_are_kept_apart_by_reuse(tmp_path: Path) -> None:
    files = [
        written(tmp_path / f"{i}.jsonl", [point(arm, max_reuse=reuse)])
        for i, (arm, reuse) in enumerate([("16x8-group", 1), ("16x8-value", 2), ("16x8-value", 1)])
    ]
    (curves,) = read_curves(files).values()
    assert [curve.name for curve in curves] == [
        "16 x 8, group baseline",
        "16 x 8, value model",
        "16 x 8, value model, each batch 2 times",
    ]


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n"])
def test_files_of_others_are_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=r"other\.jsonl is not a file of"):
        read_curves([file])


def test_commands_run_an_arm_and_write_picture_and_section(world: Split, student: GPTRec, tmp_path: Path) -> None:
    data, policy, out = tmp_path / "data.npz", tmp_path / "student", tmp_path / "runs" / "arm.jsonl"
    world.interactions.save(data)
    hashes = {"catalogue_hash": world.catalogue.hash, "split_hash": world.hash}
    save_policy(policy, student.to_files(), step=0, config={}, **hashes)
    arm = ["--arm", "16x8-group", "--max-reuse", "2", "--lists", "1280", "--validate-every", "1280"]
    paths = ["--data", str(data), "--student", str(policy), "--out", str(out)]
    runner = CliRunner()
    outcome = runner.invoke(main, ["run", *paths, *arm, "--set", "precision=fp32"])
    assert outcome.exit_code == 0, outcome.output
    (curve,) = next(iter(read_curves([out]).values()))
    assert (curve.name, curve.lists.tolist()) == ("16 x 8, group baseline, each batch 2 times", [0, 1280])

    png, section = tmp_path / "images" / "learning.png", tmp_path / "performance.md"
    outcome = runner.invoke(main, ["draw", str(out), "--png", str(png), "--section", str(section)])
    assert outcome.exit_code == 0, outcome.output
    assert png.stat().st_size > 0
    text = section.read_text()
    assert "| 16 x 8, group baseline, each batch 2 times | 1 |" in text
    assert "(images/learning.png)" in text


def test_bad_input_is_a_message(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(
        main, ["run", "--data", str(tmp_path / "no.npz"), "--student", "s", "--arm", "16x8-value", "--out", "o"]
    )
    assert outcome.exit_code == 2
    assert "no.npz" in outcome.output
