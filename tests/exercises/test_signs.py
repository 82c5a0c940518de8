"""The signs of the clinic's faults: each threshold is tried on either side, and stands here as a number."""

import math

import pandas as pd
import pytest
import torch
from torch import nn

from course_utils.exercises import signs
from course_utils.exercises.signs import Patient


def patient(weight=(1.0,), inputs=(1.0, -1.0), bias=0.0) -> Patient:
    """Return a network whose logits are `bias` for the right class and 0 for the nine others."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.as_tensor(weight).reshape(len(weight), -1))
    model.forward = lambda x: torch.tensor([[bias] + 9 * [0.0]])
    return Patient(1, "", model, torch.tensor(inputs), torch.tensor([0]))


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"layer": ["0", "2", "4"], "fan_in": [8, 8, 8], **columns})


@pytest.mark.parametrize(
    ("sign", "column", "limit"), [("dead", "dead", 0.6), ("saturated", "saturated", 0.5)]
)
def test_shares_of_units_and_outputs(sign, column, limit):
    for value, present in [(limit - 0.01, False), (limit + 0.01, True)]:
        found, words = getattr(signs, sign)(patient(), table(**{column: [math.nan, value, 0.0]}))
        assert found == present
        assert words == f"the largest value of {column} is {value:.2g}, at 2."


@pytest.mark.parametrize("column", ["second_moment", "gradient_second_moment"])
@pytest.mark.parametrize("grows", [True, False])
def test_a_drift_is_one_of_100_between_the_hidden_layers(column, grows):
    for factor, present in [(95, False), (105, True), (1 / 105, False)]:
        factor = factor if grows else 1 / factor
        values = [1.0, factor, 1e9] if column == "second_moment" else [factor, 1.0, 1e9]
        found, words = signs.drift(column, grows=grows)(patient(), table(**{column: values}))
        assert found == present
        assert f"a factor of {factor:.2g} per layer" in words


@pytest.mark.parametrize(
    ("inputs", "present"),
    [
        ([9.9**0.5, -(9.9**0.5)], False),
        ([10.1**0.5, -(10.1**0.5)], True),
        ([1.1e-3**0.5, -(1.1e-3**0.5)], False),
        ([0.9e-3**0.5, -(0.9e-3**0.5)], True),
        ([0.7 + 0.72, 0.7 - 0.72], False),  # mean² = .49, half of the second moment is .504
        ([0.72 + 0.7, 0.72 - 0.7], True),
        ([3, 900], False),  # tokens
    ],
)
def test_inputs_have_a_scale(inputs, present):
    assert signs.input_scale(patient(inputs=inputs), table())[0] == present


def test_units_are_identical_if_they_have_more_than_half_in_common():
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    for share, present in [(0.49, False), (0.51, True)]:
        found, words = signs.identical(patient(share**0.5 + (1 - share) ** 0.5 * checkers), table())
        assert found == present
        assert f"{share:.0%} of the weights' second moment in weight" in words


def test_units_are_identical_in_either_layout():
    rows = torch.tensor([[1.0, -1.0, 2.0, -2.0]]).expand(3, 4)
    for weight in (rows, rows.T):
        assert "100% of the weights' second moment in weight" in signs.identical(patient(weight), table())[1]


def test_a_loss_is_large_2_and_a_half_above_ln_10():
    for excess, present in [(2.45, False), (2.55, True)]:
        others = 9 / (
            1 - 0.1 * math.exp(-excess)
        )  # so that the right class has probability exp(-excess) / 10
        bias = math.log(0.1 * math.exp(-excess) * others)
        found, words = signs.initial_loss(patient(bias=bias), table())
        assert found == present
        assert f"{math.log(10) + excess:.3g}" in words


def test_zeros_and_what_is_not_finite_are_seen():
    assert signs.zero(patient(), table(weight_std=[0.1, 0.0, 0.1]))[0]
    assert not signs.zero(patient(), table(weight_std=[0.1, 1e-9, 0.1]))[0]
    assert signs.not_finite(patient([1.0, math.inf]), table())[1].endswith("1 in weight.")
    assert not signs.not_finite(patient(), table())[0]
