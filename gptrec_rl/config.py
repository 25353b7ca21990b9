"""What can be set: one frozen model a component; the presets are the defaults and `PAPER`."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from gptrec_rl.data import SplitConfig
from gptrec_rl.settings import Count, Positive, Seed, Settings, Size

BUILT_IN = ("markov", "popularity")
"""Models that need no training; a folder names any other."""

Precision = Literal["auto", "bf16", "fp32"]
Correction = Literal["clip", "truncated", "vtrace", "decoupled"]


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path and path not in BUILT_IN else path


Place = Annotated[str, AfterValidator(_absolute)]
"""A built-in model, or a path, absolute from where it was given on: a run is resumed from any folder."""


def _is_a_reranker(method: str) -> str:
    from gptrec_rl.rerank import RERANKERS

    if method not in RERANKERS:
        raise ValueError(f"it is none of {', '.join(RERANKERS)}")
    return method


RerankMethod = Annotated[str, AfterValidator(_is_a_reranker)]
"""One of `gptrec_rl.rerank.RERANKERS`."""
RerankScaling = Literal["raw", "min-max", "softmax"]
"""`raw`: the model's scores and shares of the interactions, as in the paper; `min-max`: both brought to 0..1;
`softmax`: the model's probabilities and shares of the interactions."""


class TransformerConfig(Settings):
    """Size of a Transformer over items (section 4.3)."""

    n_layers: Size = 3
    n_heads: Size = 4
    width: Size = 256
    """Embedding size D, a multiple of n_heads."""
    history_length: Size = 200
    """n: how many of a user's last items the model reads."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} can't be shared by {self.n_heads} heads; give a multiple of them")
        return self


class ModelConfig(TransformerConfig):
    """Size of the policy's and the value model's GPT-2."""

    slate_length: Size = 10
    """K: how many items a list has."""


class TrainingConfig(Settings):
    """What the training of every model has."""

    split: SplitConfig = SplitConfig()
    max_minutes: Positive | None = None
    """Time budget; Adam's learning rate falls along a cosine to 0 over it. None: constant rate until patience ends."""
    max_steps: Count | None = None
    """Step budget, with the same cosine; the first of the two budgets that ends stops the training."""
    validate_every: Count = 100
    """Steps between two validations."""
    patience: Count = 200
    """Validations without a better one before training stops."""
    checkpoint_every_s: Positive = 60.0
    """Seconds between two saved states to resume from."""
    seed: Seed = 0


class AdamConfig(TrainingConfig):
    """Training by Adam, on batches of users."""

    batch_size: Size = 128
    """Users a step, drawn anew."""
    learning_rate: Positive = 1e-3
    warmup_steps: Count = 100
    dropout: float = Field(0.0, ge=0, lt=1)
    precision: Precision = "auto"
    """Of matrix products; bf16 where the hardware lacks it is obeyed, far more slowly than fp32, after one warning."""


class RerankConfig(Settings):
    """A reranker over a scoring model (section 4.2); see `gptrec_rl.models.reranker`."""

    method: RerankMethod
    weight: float = Field(ge=0, le=1)
    """Of the model's score; 1 leaves its lists as they are."""
    scaling: RerankScaling = "min-max"
    n_candidates: Size = 1000
    """How many of the best unseen items a list is chosen from, and scaled over."""


class PretrainConfig(AdamConfig):
    """Stage 1: the student learns to write the teacher's lists (equation 6)."""

    model: ModelConfig = ModelConfig()
    teacher: Place = "markov"
    """markov, popularity, or the folder of a trained model."""
    rerank: RerankConfig | None = None
    """How the teacher's lists are reranked before the student learns them; None: not at all."""
    start: Place | None = None
    """Folder of a student to go on from, with another teacher perhaps; None: random weights."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """The paper trains to convergence with 0.1; a budget of minutes is over before a model this small overfits."""


class NextItemConfig(AdamConfig):
    """Training on shifted sequences."""

    model: TransformerConfig = TransformerConfig()


class SASRecConfig(NextItemConfig):
    """SASRec (Kang and McAuley, 2018), and its stronger losses."""

    model: TransformerConfig = TransformerConfig(n_layers=2, n_heads=2)
    dropout: float = Field(0.2, ge=0, lt=1)
    loss: Literal["bce", "gbce", "softmax"] = "bce"
    """Binary cross-entropy as in SASRec and the paper; gSASRec's generalised one; cross-entropy over all items."""
    n_negatives: Size = 1
    """Of bce and gbce: items that the user doesn't have, drawn for each place of a history. gSASRec: 256."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gbce (Petrov and Macdonald, 2023): 0 is bce, 1 calibrates probabilities fully."""


class ShiftingConfig(NextItemConfig):
    """GPTRec-Shifting (section 4.5): the policy's GPT-2, trained by cross-entropy over all items."""

    dropout: float = Field(0.1, ge=0, lt=1)


class Bert4RecConfig(AdamConfig):
    """BERT4Rec (Sun et al., 2019): masked items, cross-entropy over all items."""

    model: TransformerConfig = TransformerConfig()
    batch_size: Size = 32
    """Many small steps: on MovieLens-1M it takes about a thousand until anything but popularity is learned."""
    learning_rate: Positive = 3e-4
    """On MovieLens-1M nothing but popularity was learned with 1e-3, in 5,700 steps."""
    dropout: float = Field(0.1, ge=0, lt=1)
    mask_share: float = Field(0.2, gt=0, le=1)
    """The chance of an item of a window to be masked; one always is."""
    last_share: float = Field(0.1, ge=0, le=1)
    """Windows in which the last item alone is masked, as when recommending; the authors' code makes one in eleven."""


class FactorsConfig(Settings):
    """Size of a matrix factorisation."""

    n_factors: Size = 128


class BprConfig(TrainingConfig):
    """MF-BPR (Rendle et al., 2009); a step draws as many interactions as there are, and the learning rate is constant.

    One thread trains: several would race for the factors, and no two runs would be alike.
    """

    model: FactorsConfig = FactorsConfig()
    learning_rate: Positive = 0.01
    regularisation: float = Field(0.01, ge=0)
    validate_every: Count = 5
    patience: Count = 10


class PpoConfig(Settings):
    """PPO (Appendix A.3, read as the deviations in docs/paper.md say)."""

    policy_learning_rate: Positive = 3e-5
    value_learning_rate: Positive = 1e-4
    weight_decay: float = Field(0.01, ge=0)
    clip: Positive = 0.2
    """epsilon of equation 12: how far a ratio may leave 1 before it stops earning."""
    correction: Correction = "clip"
    """What stands for the policy's gradient on lists of an older policy; each is a loss of its own.

    `clip`: equation 12, as the paper. `truncated`: truncated importance weights. `vtrace`: these, with the value
    targets and advantages of V-trace (Espeholt et al., 2018); needs the value model. `decoupled`: the clip around the
    policy at the batch's first pass (Hilton et al., 2022); needs two passes.
    """
    truncation: float = Field(2.0, ge=1)
    """Largest importance weight of all but `clip`; V-trace's rho and c, which are 1 in its paper."""
    gamma: float = Field(0.99, gt=0, le=1)
    gae_lambda: float = Field(0.9, ge=0, le=1)
    """Of GAE, and of V-trace."""
    passes: Count = 2
    """Updates on each drawn batch."""
    normalise_advantages: bool = True
    """Subtract the batch's mean and divide by its standard deviation."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of each model's gradient; None leaves gradients alone."""
    value_clip: Positive | None = None
    """How far a value may move from the one at the batch's first pass before it stops earning."""
    entropy_bonus: float = Field(0.0, ge=0)
    kl_weight: float = Field(0.0, ge=0)
    """Weight of KL(policy || reference), the student being the reference; 0 loads no reference."""
    kl_target: Positive | None = None
    """Adapt the weight so that the KL per item stays near this value; None keeps the weight."""
    guidance: float = Field(0.0, ge=0)
    """Weight of the supervised loss on the ground truth as first item of the list."""
    baseline: Literal["value", "group"] = "group"
    """`group`: returns less the mean of the history's other lists; `value`: GAE with the value model, as the paper."""
    max_skipped_steps: Count = 10
    """Stop after this many losses in a row that are not finite."""

    @model_validator(mode="after")
    def _correction_has_what_it_needs(self) -> Self:
        if self.correction == "vtrace" and self.baseline != "value":
            raise ValueError(
                f"correction 'vtrace' corrects a value model's targets, and baseline {self.baseline!r} has none; "
                "set ppo.baseline to 'value', or ppo.correction to 'truncated'"
            )
        if self.correction == "decoupled" and self.passes < 2:
            raise ValueError(
                "correction 'decoupled' clips what moved since a batch's first pass, and with passes 1 nothing has; "
                "set ppo.passes to 2 or more, or ppo.correction to 'truncated'"
            )
        return self


class FleetConfig(Settings):
    """The asynchronous fleet (section 3.3)."""

    n_generators: Size = 1
    n_histories: Size = 16
    """B: histories a batch."""
    n_lists: Size = 8
    """G: lists sampled for each history."""
    temperature: Positive = 1.0
    cache_batches: Size = 8
    """M: the recommendation cache holds the last M batches."""
    max_staleness: Count | None = 4
    """Most published versions between a batch's policy and the newest; None: any."""
    max_reuse: Count | None = 1
    """How often one batch is drawn at most; None: as often as chance will have it."""
    publish_every: Count = 20
    """Steps between two published policies."""
    checkpoint_every_s: Positive = 60.0
    """Seconds between two learner states to resume from."""
    validator_share: float = Field(0.25, gt=0, le=1)
    """Largest share of its time that the validator computes."""
    lease_s: Positive = 10.0
    """Seconds after which the place of an optimiser that was killed is free."""
    heartbeat_s: Positive = 5.0
    """Seconds between two reports of a process; one that sent none for 60 heartbeats is started again. Work of up to an
    hour says by itself that it lives."""
    record: bool = False
    """Keep what the optimiser draws in the run folder, for `tune --replay`."""
    record_gb: Positive = 4.0
    """Size at which the recording ends and the run goes on; a batch of 128 lists takes about 30 KB."""


class TuneConfig(Settings):
    """Stage 2: PPO aligns the student with a goal (sections 3.1 to 3.3)."""

    run_id: str = Field("run", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Keeps runs apart that share a Redis; `tune` draws one."""
    data: Place = ""
    """The data file, which `--data` and GPTREC_DATA override."""
    goal: str = "ndcg=1,ild=1"
    """Weighted sum of rewards, `name=weight,...`: ndcg, ild, pcount, calibration, expected_ndcg or module:function."""
    reward_model: Place | None = None
    """Folder of a trained model whose probabilities expected_ndcg takes for the truth, such as a softmax SASRec's."""
    steps: Count | None = None
    """Stop after this many learner steps."""
    max_minutes: Positive | None = None
    """Stop after this time."""
    split: SplitConfig = SplitConfig()
    ppo: PpoConfig = PpoConfig()
    fleet: FleetConfig = FleetConfig()
    precision: Precision = "auto"
    """Of matrix products; bf16 where the hardware lacks it is obeyed, far more slowly than fp32, after one warning."""
    seed: Seed = 0


PAPER: dict[str, Any] = {
    "steps": 64_000,
    "ppo": {
        "policy_learning_rate": 1e-5,
        "baseline": "value",
        "passes": 1,
        "normalise_advantages": False,
        "gradient_clip": None,
    },
    "fleet": {"n_generators": 8, "n_histories": 128, "n_lists": 1, "max_staleness": None, "max_reuse": None},
}
"""Settings behind Table 3, where they differ from the defaults, which suit two cores and minutes."""
