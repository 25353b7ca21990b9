"""Round trips of optimiser moments and random states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gptrec_rl.learning import state


def test_tensors_round_trip_even_when_they_share_memory() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"whole": shared, "view": shared.T, "scalar": torch.tensor(3), "half": shared.bfloat16()}
    loaded = state.tensors_from_bytes(state.tensors_to_bytes(tensors))
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_restored_optimiser_takes_the_same_steps(kind: type[torch.optim.Adam]) -> None:
    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        optimiser.zero_grad()
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        model(inputs).square().sum().backward()
        optimiser.step()

    model, copy = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimiser, restored = (kind(m.parameters(), lr=0.1, fused=True) for m in (model, copy))
    for seed in range(3):
        step(model, optimiser, seed)
    copy.load_state_dict(model.state_dict())
    state.optimiser_from_bytes(restored, state.optimiser_to_bytes(optimiser))
    for seed in range(3, 5):
        step(model, optimiser, seed)
        step(copy, restored, seed)
    for original, copied in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(original, copied)


def test_an_optimiser_without_steps_round_trips() -> None:
    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    state.optimiser_from_bytes(optimiser, state.optimiser_to_bytes(optimiser))
    assert not optimiser.state_dict()["state"]


@pytest.mark.parametrize(
    "moments",
    [
        {"step": torch.tensor(1.0), "exp_avg": torch.zeros(1, 2), "exp_avg_sq": torch.zeros(1)},
        {"step": torch.tensor(1.0), "exp_avg": torch.zeros(1, 2)},
    ],
    ids=["shorter", "missing"],
)
def test_moments_that_are_not_those_of_the_parameters_are_refused(moments: dict[str, torch.Tensor]) -> None:
    optimiser = torch.optim.AdamW(torch.nn.Linear(2, 1).parameters(), fused=True)
    saved = state.tensors_to_bytes({f"0.{key}": value for key, value in moments.items()})
    with pytest.raises(ValueError, match="moments of parameter 0"):
        state.optimiser_from_bytes(optimiser, saved)


def test_the_settings_of_an_optimiser_come_from_its_maker() -> None:
    model = torch.nn.Linear(2, 1)
    old, new = torch.optim.AdamW(model.parameters(), lr=0.5), torch.optim.AdamW(model.parameters(), lr=0.1)
    state.optimiser_from_bytes(new, state.optimiser_to_bytes(old))
    assert new.param_groups[0]["lr"] == 0.1


def test_a_restored_generator_draws_on() -> None:
    rng = np.random.default_rng(7)
    rng.random(5)
    restored = state.numpy_rng_from_json(state.numpy_rng_to_json(rng))
    assert np.array_equal(restored.integers(0, 2**60, 20), rng.integers(0, 2**60, 20))
    assert restored.random() == rng.random()
