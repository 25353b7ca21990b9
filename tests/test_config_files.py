"""Configuration files: layers, words for what TOML lacks, errors that name key, value, place and remedy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gptrec_rl.config_files import changed_settings, read_config, write_config
from gptrec_rl.errors import InputError


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ppo(Part):
    learning_rate: float = Field(3e-5, gt=0)
    clip: float = Field(0.2, gt=0, lt=1)
    passes: int = Field(2, ge=1)


class Cache(Part):
    max_staleness: int | None = Field(4, ge=0)


class Run(Part):
    name: str = "untitled"
    device: Literal["cpu", "cuda"] = "cpu"
    data: Path | None = None
    goal: dict[str, float] = {"ndcg": 1.0}
    layers: tuple[int, ...] = (1, 2)
    ppo: Ppo = Ppo()
    cache: Cache | None = Cache()

    @model_validator(mode="after")
    def _check(self) -> Run:
        if self.device == "cuda" and self.ppo.passes > 8:
            raise ValueError("ppo.passes above 8 needs device = cpu")
        return self


class Needy(Part):
    steps: int


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_defaults_without_any_source():
    assert read_config(Run, None) == Run()


def test_overrides_win_over_the_file_and_the_file_over_the_base(toml):
    base = {"name": "base", "ppo": {"clip": 0.1, "passes": 3, "learning_rate": 1.0}}
    file = toml('name = "file"\n[ppo]\npasses = 4\nlearning_rate = 2.0\n')
    config = read_config(Run, file, ["ppo.learning_rate=1e-5"], base)
    assert config == Run(name="file", ppo=Ppo(clip=0.1, passes=4, learning_rate=1e-5))


def test_the_last_of_equal_overrides_wins():
    assert read_config(Run, None, ["ppo.passes=3", "ppo.passes=5"]).ppo.passes == 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=a word or two", Run(name="a word or two")),
        ('name="12"', Run(name="12")),
        ("name=x=y", Run(name="x=y")),
        ("name=", Run(name="")),
        ("name=none", Run(name="none")),
        ("name=2024-05-01", Run(name="2024-05-01")),
        ("name=12e5", Run(name="12e5")),
        ("name=true", Run(name="true")),
        ("name='true'", Run(name="true")),
        ({"name": "2024-05-01", "ppo": {"clip": 0.3}}, Run(name="2024-05-01", ppo=Ppo(clip=0.3))),
        ("data=a/b.npz", Run(data=Path("a/b.npz"))),
        ("layers=[3]", Run(layers=(3,))),
        ("goal.ild=0.5", Run(goal={"ild": 0.5})),
        ("ppo.clip=0.3", Run(ppo=Ppo(clip=0.3))),
        ("ppo={clip=0.3}", Run(ppo=Ppo(clip=0.3))),
        ("cache.max_staleness=none", Run(cache=Cache(max_staleness=None))),
        ("cache=none", Run(cache=None)),
    ],
)
def test_override_values(override, expected):
    assert read_config(Run, None, [override]) == expected


def test_a_part_that_is_given_in_part_keeps_the_rest_of_the_models_own_default():
    class Small(Run):
        ppo: Ppo = Ppo(clip=0.7, passes=9)

    assert read_config(Small, None, ["ppo.clip=0.3"]).ppo == Ppo(clip=0.3, passes=9)
    assert read_config(Small, None, (), {"ppo": {"clip": 0.3}}).ppo == Ppo(clip=0.3, passes=9)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("ppo.lerning_rate", "ppo.learning_rate"),
        ("learning_rate", "ppo.learning_rate"),
        ("max_staleness", "cache.max_staleness"),
        ("cach.max_stalenes", "cache.max_staleness"),
        ("nam", "name"),
    ],
)
def test_unknown_key_names_the_nearest_right_one(key, nearest):
    with pytest.raises(InputError, match=rf"no setting {key.split('.')[0]}.*did you mean {nearest}\?"):
        read_config(Run, None, [f"{key}=1"])


def test_unknown_key_says_where_it_stands(toml):
    file = toml("[ppo]\nclipp = 0.1\n")
    with pytest.raises(InputError, match=r"run\.toml: there is no setting ppo\.clipp; did you mean ppo\.clip\?"):
        read_config(Run, file)
    with pytest.raises(InputError, match=r"--set: there is no setting nmae; did you mean name\?"):
        read_config(Run, None, ["nmae=x"])


def test_value_out_of_range_names_source_key_value_and_range(toml):
    file = toml("[ppo]\nclip = 1.5\n")
    with pytest.raises(InputError, match=r"run\.toml: ppo\.clip = 1\.5: .*less than 1 \(allowed: > 0 and < 1\)"):
        read_config(Run, file)
    with pytest.raises(InputError, match=r"--set: ppo\.passes = 0: .*\(allowed: >= 1\)"):
        read_config(Run, file, ["ppo.clip=0.1", "ppo.passes=0"])


def test_every_bad_value_is_named_at_once():
    with pytest.raises(InputError, match=r"(?s)ppo\.clip = 2\.0.*\n.*ppo\.passes = 0"):
        read_config(Run, None, ["ppo.clip=2.0", "ppo.passes=0"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device=gpu", r"device = 'gpu': Input should be 'cpu' or 'cuda'"),
        ("cache.max_staleness=-1", r"cache\.max_staleness = -1: .*allowed: >= 0"),
        ("layers=[1, 'x']", r"layers = 'x': .*valid integer"),
        ("goal.ild=much", r"goal = 'much': .*valid number"),
        ("ppo=3", r"ppo = 3: .*Ppo"),
        ("ppo.clip.x=1", r"ppo\.clip = \{'x': 1\}: .*valid number"),
        ("ppo.clip", r"write KEY=VALUE"),
        ("=3", r"write KEY=VALUE"),
        ("ppo..clip=3", r"write KEY=VALUE"),
    ],
)
def test_bad_override(override, message):
    with pytest.raises(InputError, match=message):
        read_config(Run, None, [override])


def test_settings_that_contradict_each_other():
    with pytest.raises(InputError, match=r"^ppo\.passes above 8 needs device = cpu$"):
        read_config(Run, None, ["device=cuda", "ppo.passes=9"])


def test_missing_setting():
    with pytest.raises(InputError, match=r"the setting steps is missing"):
        read_config(Needy, None)


def test_file_that_is_missing_or_malformed(tmp_path, toml):
    with pytest.raises(InputError, match=r"absent\.toml can't be read: No such file"):
        read_config(Run, tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r"run\.toml isn't valid TOML: .*line 2"):
        read_config(Run, toml("name = 'x'\nppo = = 3\n"))
    latin = tmp_path / "latin.toml"
    latin.write_bytes("name = 'é'".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.toml isn't valid TOML"):
        read_config(Run, latin)


def test_written_file_names_every_field_and_leaves_nothing_beside_it(tmp_path):
    write_config(Run(cache=Cache(max_staleness=None)), tmp_path / "config.toml")
    text = (tmp_path / "config.toml").read_text()
    assert 'max_staleness = "none"' in text
    assert "learning_rate = 3e-05" in text
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    write_config(Run(name="old"), path)
    monkeypatch.setattr("tomli_w.dumps", lambda values: values["nothing"])
    with pytest.raises(KeyError):
        write_config(Run(name="new"), path)
    assert read_config(Run, path).name == "old"


@given(
    st.builds(
        Run,
        name=st.text(st.characters(codec="utf-8")),
        data=st.none() | st.just(Path("a b/ü.npz")),
        goal=st.dictionaries(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False)),
        ppo=st.builds(Ppo, learning_rate=st.floats(0, math.inf, exclude_min=True), passes=st.integers(1, 2**62)),
        cache=st.none() | st.builds(Cache, max_staleness=st.none() | st.integers(0, 9)),
    )
)
def test_round_trip(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("run") / "config.toml"
    write_config(config, path)
    assert read_config(Run, path) == config


def test_changed_settings_are_named_with_both_values():
    before = {"a": 1, "b": {"c": 2, "d": 3}, "e": None, "gone": 4}
    after = {"a": 1, "b": {"c": 2, "d": 5}, "e": {"f": 6}}
    assert list(changed_settings(before, after)) == [("b.d", 3, 5), ("e", None, {"f": 6}), ("gone", 4, None)]


@pytest.mark.parametrize("text", ["name = " + "[" * 10_000, "goal." + "a." * 5_000 + "a = 1"])
def test_a_configuration_that_is_nested_too_deeply_is_refused(toml, text):
    with pytest.raises(InputError, match="nested too deeply"):
        read_config(Run, toml(text))
    with pytest.raises(InputError, match="nested too deeply"):
        read_config(Run, None, [text.replace(" = ", "=")])


def test_a_file_too_long_for_a_configuration_is_refused(toml):
    assert read_config(Run, toml("#" * 2**14)) == Run()
    with pytest.raises(InputError, match="more than 16384 bytes"):
        read_config(Run, toml("#" * (2**14 + 1)))
