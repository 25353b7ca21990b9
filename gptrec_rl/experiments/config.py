"""What the files of a set say: `dataset.toml` which data it is about, every other file how one row or curve is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gptrec_rl.config import RerankMethod, RerankScaling
from gptrec_rl.config_files import merged
from gptrec_rl.data import SplitConfig
from gptrec_rl.experiments.goal_values import is_measured
from gptrec_rl.goals import parse_goal
from gptrec_rl.kinds import trained_kinds
from gptrec_rl.recommender import Strategy
from gptrec_rl.settings import Count, Positive, Seed, Settings

BuiltInModel = Literal["popularity", "markov"]
BUILT_IN: tuple[BuiltInModel, ...] = ("popularity", "markov")


class SyntheticConfig(Settings):
    """The made-up world, as `gptrec_rl.data.sources.synthetic.generate` takes it."""

    n_users: Count = 2000
    n_items: Count = 400
    mean_length: Positive = 40.0
    n_genres: Count = 8
    seed: Seed = 0


class DatasetConfig(Settings):
    """Which data the rows of a set are about."""

    title: str
    """What documents call it."""
    data: str
    """The data file."""
    data_name: str
    """What the file calls its data: no row is made of other data by mistake."""
    prepare: str = ""
    """The command that makes the file."""
    synthetic: SyntheticConfig | None = None
    """Given, the file is made when it is missing."""
    split: SplitConfig = SplitConfig()
    k: Count = 10
    """Length of the lists."""
    baseline: str = ""
    """The row that the others are tested against; empty for none."""


class BuiltIn(Settings):
    """A model that needs no training."""

    model: BuiltInModel


class Train(Settings):
    """A model of `gptrec-rl train`."""

    model: str
    """As `gptrec-rl train` calls it."""

    @field_validator("model")
    @classmethod
    def _can_be_trained(cls, model: str) -> str:
        if model not in trained_kinds():
            raise ValueError(f"it is none of {', '.join(trained_kinds())}")
        return model


class Pretrain(Settings):
    """A student of stage 1."""

    teacher: str
    """A built-in model, or the row of a trained one; `[settings.rerank]` reranks its lists."""
    start: str | None = None
    """The row of a student to go on from; None: random weights."""


class Tune(Settings):
    """A student after stage 2."""

    student: str
    """The row that it starts from."""
    goal: str
    """As `gptrec-rl tune --goal` takes it."""
    reward_model: str | None = None
    """The row of the model that the reward `expected_ndcg` asks."""
    serial: bool = False
    """In one process, without Redis: for tiny runs."""

    @field_validator("goal")
    @classmethod
    def _is_a_goal(cls, goal: str) -> str:
        parse_goal(goal)
        return goal


class Rerank(Settings):
    """A curve: a scoring model's lists, reranked with each of many weights."""

    base: str
    """A built-in model, or the row of a trained one."""
    method: RerankMethod
    scaling: RerankScaling
    weights: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    """Of the score."""
    goals: tuple[str, ...] = Field(min_length=1)
    """The best weight for each of these goals keeps its values per user, which paired tests need."""

    @field_validator("goals")
    @classmethod
    def _are_measured(cls, goals: tuple[str, ...]) -> tuple[str, ...]:
        for goal in goals:
            if not is_measured(goal):
                raise ValueError(f"{goal} has a reward that no metric of the table measures; leave it out")
        return goals


How = BuiltIn | Train | Pretrain | Tune | Rerank


class RowConfig(Settings):
    """One row of Table 3, or one curve of a figure; exactly one of the tables that say how it is made."""

    name: str
    type: str
    """Table 3's model type."""
    place: float
    """Where in the table: smaller is higher."""
    published: str = ""
    """The row's key in `published.toml`; empty where nothing was published."""
    note: str = ""
    """What the reader of its result should know, such as why it differs from what was published."""
    strategies: tuple[Strategy, ...] = Field(("next-k",), min_length=1)
    """How lists are made; the first one is the row's own, two of them draw a panel of Figure 3."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    built_in: BuiltIn | None = None
    train: Train | None = None
    pretrain: Pretrain | None = None
    tune: Tune | None = None
    rerank: Rerank | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training, as its command's `--config` takes them."""
    budgets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of each budget, which win over the others; of a tuned row also the `student` that it starts from."""

    @model_validator(mode="after")
    def _is_made_in_one_way(self) -> RowConfig:
        if len(self._ways) != 1:
            raise ValueError("a row has exactly one of the tables built_in, train, pretrain, tune and rerank")
        if self.is_trained and not self.budgets:
            raise ValueError("a row that is trained needs a budget, such as [budgets.cpu] with max_minutes = 30")
        for budget, own in self.budgets.items():
            if self.tune is not None and not isinstance(own.get("student", ""), str):
                raise ValueError(f"budgets.{budget}.student = {own['student']!r} is not the name of a row")
            if self.tune is not None and not {"steps", "max_minutes"} & self.settings_of(budget).keys():
                raise ValueError(f"budgets.{budget} has neither steps nor max_minutes, without which tuning never ends")
        return self

    def under(self, budget: str) -> RowConfig:
        """Return the row as it is made under a budget: from the student that this one names, if it does."""
        student = self.budgets.get(budget, {}).get("student")
        if self.tune is None or student is None:
            return self
        return self.model_copy(update={"tune": self.tune.model_copy(update={"student": student})})

    @property
    def _ways(self) -> list[How]:
        ways = (self.built_in, self.train, self.pretrain, self.tune, self.rerank)
        return [way for way in ways if way is not None]

    @property
    def how(self) -> How:
        """What the row is made by."""
        return self._ways[0]

    @property
    def is_trained(self) -> bool:
        """Whether making the row trains a model."""
        return isinstance(self.how, Train | Pretrain | Tune)

    @property
    def needs(self) -> tuple[str, ...]:
        """The rows that have to be made before this one."""
        names: tuple[str | None, ...] = ()
        match self.how:
            case Pretrain(teacher=teacher, start=start):
                names = (teacher, start)
            case Tune(student=student, reward_model=reward_model):
                names = (student, reward_model)
            case Rerank(base=base):
                names = (base,)
        return tuple(name for name in names if name is not None and name not in BUILT_IN)

    def settings_of(self, budget: str) -> dict[str, Any]:
        """Return the settings of the training under a budget."""
        own = self.budgets.get(budget, {})
        if self.tune is not None:
            own = {name: value for name, value in own.items() if name != "student"}
        return merged(self.settings, own)

    def makes_otherwise(self, other: RowConfig, budget: str) -> bool:
        """Tell whether another configuration would make the row in another way under a budget."""
        return (self.how, self.strategies, self.settings_of(budget)) != (
            other.how,
            other.strategies,
            other.settings_of(budget),
        )
