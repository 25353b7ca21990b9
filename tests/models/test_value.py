"""The value model: what it reads, and that it is its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gptrec_rl.data import Histories
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.models.value import ValueModel


def test_values_are_read_after_the_separator_and_after_each_of_the_first_k_less_one_items(
    make_policy: Callable[..., GPTRec],
) -> None:
    student = make_policy()
    model = ValueModel(student).eval()
    histories = Histories.of([[], [7, 2, 9]])
    slates = np.array([[[1, 2, 3], [4, 5, 6]], [[4, 1, 12], [1, 4, 12]]])
    with torch.no_grad():
        values = model(student.lay_out(histories, slates))
        # Tokens of history [7, 2, 9] and list [4, 1, 12]: the last item is never read.
        states = (
            GPTRec(model.backbone)
            .network.transformer(
                input_ids=torch.tensor([[7, 2, 9, 13, 4, 1]]), position_ids=torch.tensor([[3, 2, 1, 0, 6, 7]])
            )
            .last_hidden_state[0, -3:]
        )
        expected = model.head(states).squeeze(-1)
    assert values.shape == (2, 2, 3)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values[1, 0], expected, atol=1e-4, rtol=0)
    assert torch.equal(values[0, 0, 0], values[0, 1, 0])  # the same state: the history alone


def test_training_values_leaves_the_student_alone(make_policy: Callable[..., GPTRec]) -> None:
    student = make_policy()
    model = ValueModel(student)
    model(student.lay_out(Histories.of([[1]]), np.array([[[2, 3, 4]]]))).sum().backward()
    assert all(weights.grad is None for weights in student.parameters())
    assert any(weights.grad is not None for weights in model.backbone.parameters())


def test_values_in_bf16_stay_near_and_are_fp32(make_policy: Callable[..., GPTRec]) -> None:
    student = make_policy()
    model = ValueModel(student).eval()
    sequences = student.lay_out(Histories.of([[], [7, 2, 9]]), np.array([[[1, 2, 3]], [[4, 1, 12]]]))
    with torch.no_grad():
        exact, near = model(sequences), model(sequences, torch.bfloat16)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0)
