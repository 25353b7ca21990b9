"""The presets and the bounds between settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gptrec_rl.config import PAPER, ModelConfig, PpoConfig, PretrainConfig, RerankConfig, TuneConfig


def test_the_papers_preset_is_valid_and_has_the_settings_behind_table_3() -> None:
    paper = TuneConfig.model_validate(PAPER)
    assert (paper.steps, paper.fleet.n_generators, paper.fleet.cache_batches, paper.fleet.publish_every) == (
        64_000,
        8,
        8,
        20,
    )
    assert (paper.fleet.n_histories * paper.fleet.n_lists, paper.fleet.max_staleness, paper.fleet.max_reuse) == (
        128,
        None,
        None,
    )
    ppo = paper.ppo
    assert (ppo.policy_learning_rate, ppo.value_learning_rate, ppo.weight_decay) == (1e-5, 1e-4, 0.01)
    assert (ppo.clip, ppo.gamma, ppo.gae_lambda, ppo.entropy_bonus, ppo.kl_weight) == (0.2, 0.99, 0.9, 0.0, 0.0)


def test_paths_are_kept_from_where_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    taught = PretrainConfig(teacher="a", start="../b")
    assert (taught.teacher, taught.start) == (str(tmp_path / "a"), str(tmp_path.parent / "b"))
    tuned = TuneConfig(data="d.npz", reward_model="/m")
    assert (tuned.data, tuned.reward_model) == (str(tmp_path / "d.npz"), "/m")
    assert (TuneConfig().data, PretrainConfig(teacher="popularity").teacher) == ("", "popularity")


def test_heads_that_do_not_share_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match="width 250 can't be shared by 4 heads"):
        ModelConfig(width=250)


def test_v_trace_without_a_value_model_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"set ppo\.baseline to 'value', or ppo\.correction to 'truncated'"):
        PpoConfig(correction="vtrace", baseline="group")
    assert PpoConfig(correction="vtrace", baseline="value").correction == "vtrace"


def test_decoupled_ppo_with_a_single_pass_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"set ppo\.passes to 2 or more, or ppo\.correction to 'truncated'"):
        PpoConfig(correction="decoupled", passes=1)
    assert PpoConfig(correction="decoupled", passes=2).correction == "decoupled"


def test_a_truncation_that_would_cut_equal_weights_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        PpoConfig(truncation=0.99)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_rerankers_weight_outside_zero_to_one_is_refused(weight: float) -> None:
    with pytest.raises(ValidationError, match="weight"):
        RerankConfig(method="mmr", weight=weight)


@pytest.mark.parametrize("fleet", [{"n_lists": 2**16 + 1}, {"cache_batches": 10**18}, {"n_histories": 0}])
def test_sizes_have_bounds(fleet: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"or equal to 65536|greater than 0"):
        TuneConfig.model_validate({"fleet": fleet})


@pytest.mark.parametrize("run_id", ["", "a/b", "..}:{", "x" * 65, "run\n"])
def test_a_run_id_that_is_no_plain_name_is_refused(run_id: str) -> None:
    with pytest.raises(ValidationError, match="run_id"):
        TuneConfig(run_id=run_id)


@pytest.mark.parametrize("setting", [{"max_steps": True}, {"learning_rate": True}, {"model": {"width": False}}])
def test_a_boolean_is_no_number(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="which is no number and no text"):
        PretrainConfig.model_validate(setting)
    assert PpoConfig.model_validate({"normalise_advantages": False}).normalise_advantages is False
