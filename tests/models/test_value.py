"""The value model: what it reads, and that it is its own."""

from __future__ import annotations

from collections.abc import Callable

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
    slates = torch.tensor([[[1, 2, 3], [4, 5, 6]], [[4, 1, 12], [1, 4, 12]]])
    with torch.no_grad():
        values = model(student.tokens(histories), slates, student.positions(0, 2))
        # Tokens of history [7, 2, 9] and list [4, 1, 12]: the last item is never read.
        states = model.backbone(
            input_ids=torch.tensor([[7, 2, 9, 13, 4, 1]]), position_ids=torch.tensor([[3, 2, 1, 0, 6, 7]])
        ).last_hidden_state[0, -3:]
        expected = model.head(states).squeeze(-1)
    assert values.shape == (2, 2, 3)
    torch.testing.assert_close(values[1, 0], expected, atol=1e-4, rtol=0)
    assert torch.equal(values[0, 0, 0], values[0, 1, 0])  # the same state: the history alone


def test_training_values_leaves_the_student_alone(make_policy: Callable[..., GPTRec]) -> None:
    student = make_policy()
    model = ValueModel(student)
    model(student.tokens(Histories.of([[1]])), torch.tensor([[[2, 3, 4]]]), student.positions(0, 2)).sum().backward()
    assert all(weights.grad is None for weights in student.parameters())
    assert any(weights.grad is not None for weights in model.backbone.parameters())
