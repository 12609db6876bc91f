"""Which tokens count more, and what that does to a loss and its gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.compute.copy_weights import COMMON_TOKENS, CopiedTokens, summed

FILLERS = [[token] * 3 for token in range(300, 300 + COMMON_TOKENS)]
"""As many tokens as can be common, each more so than any other here."""


def batch(*rows: tuple[list[int], list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and completions, padded on the right as TRL does it."""
    width = max(len(prompt + completion) for prompt, completion in rows)
    ids = [[*prompt, *completion, *[0] * (width - len(prompt + completion))] for prompt, completion in rows]
    labels = [
        [*[-100] * len(prompt), *completion, *[-100] * (width - len(prompt + completion))]
        for prompt, completion in rows
    ]
    return torch.tensor(ids), torch.tensor(labels)


def test_a_token_of_the_task_is_copied_and_one_of_another_row_or_a_common_one_is_not():
    told = CopiedTokens([*FILLERS, [7, 8]], 500)
    ids, labels = batch(([7, 300, 9], [7, 300, 8, 9]), ([8, 5], [7, 8]))
    assert told.among(ids, labels).int().tolist() == [[0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0]]


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 30), min_size=1, max_size=9), st.lists(st.integers(0, 30), min_size=1, max_size=9)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_padding_and_the_token_zero_change_nothing(rows: list[tuple[list[int], list[int]]]):
    told = CopiedTokens(FILLERS, 500)
    found = told.among(*batch(*rows))
    for row, (prompt, completion) in zip(found.tolist(), rows, strict=True):
        expected = [False] * len(prompt) + [token in prompt for token in completion]
        assert row[: len(expected)] == expected
        assert not any(row[len(expected) :])


def test_the_value_is_the_plain_sum_and_the_gradient_follows_what_is_copied():
    nats = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    loss = summed(nats, torch.tensor([False, True, False, False]), 5)
    assert loss.item() == pytest.approx(10)
    loss.backward()
    assert nats.grad is not None
    assert nats.grad.tolist() == pytest.approx([0.5, 2.5, 0.5, 0.5])


def test_where_nothing_is_copied_the_gradient_is_that_without_weights():
    nats = torch.tensor([1.0, 2.0], requires_grad=True)
    summed(nats, torch.zeros(2, dtype=torch.bool), 4).backward()
    assert nats.grad is not None
    assert nats.grad.tolist() == [1, 1]
