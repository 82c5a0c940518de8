"""Checks of arguments: what they let pass, and what they say of the rest."""

import math
import re

import numpy as np
import pytest
import torch

from course_utils.checks import check_arguments, check_correlation, check_element_wise, check_name


def test_a_known_name_is_returned():
    assert check_name("mode", "fan_in", {"fan_in": 1, "fan_out": 2}) == "fan_in"


@pytest.mark.parametrize("value", ["fan_on", "", None, ["fan_in"], 1], ids=str)
@pytest.mark.parametrize("known", [("fan_in", "fan_out"), {"fan_in": 1, "fan_out": 2}], ids=["tuple", "dict"])
def test_an_unknown_name_is_met_with_those_that_are_known(value, known):
    message = f"mode must be one of 'fan_in', 'fan_out'; got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_name("mode", value, known)


@pytest.mark.parametrize("name", ["q", "gain", "bias_std"])
@pytest.mark.parametrize("value", [-1.0, -1e-300, math.nan, math.inf, [1.0, -2.0]], ids=str)
def test_what_is_no_second_moment_or_standard_deviation(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number, 0 <= {name} < inf; got {name}="):
        check_arguments(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("depth", -1, 0), ("depth", 1.0, 0), ("depth", True, 0), ("width", 0, 1), ("width", 4.5, 1)],
)
def test_what_is_no_size(name, value, least):
    message = f"{name} must be an integer, {least} <= {name} < inf; got {name}={value}"
    with pytest.raises(ValueError, match=message):
        check_arguments(**{name: value})


def test_the_least_arguments_pass():
    check_arguments(q=0.0, gain=0, bias_std=[0.0, 1.0], depth=0, width=np.int64(1))


@pytest.mark.parametrize("size", [0.0, 1.0, 1 + 9e-7, [0.5, 1.0]], ids=str)
def test_a_correlation_may_be_1_and_what_rounding_adds(size):
    check_correlation(np.array(size))
    check_correlation(-np.array(size))


@pytest.mark.parametrize("size", [1 + 1.1e-6, math.nan, [0.5, 1.1]], ids=str)
def test_what_is_no_correlation(size):
    for c in (np.array(size), -np.array(size)):
        with pytest.raises(ValueError, match="a correlation lies between -1 and 1; got"):
            check_correlation(c)


@pytest.mark.parametrize("end", [-3, 3])
def test_a_function_is_tried_from_minus_3_to_3(end):
    def ends(z):
        return torch.where(end * z > 8.9, math.nan, z)

    def behind(z):
        return torch.where(end * z > 9.1, math.nan, z)

    with pytest.raises(ValueError, match="ends must be finite"):
        check_element_wise(ends)
    assert check_element_wise(behind) == "behind"
    assert check_element_wise(torch.nn.ReLU(), "relu") == "relu"
    assert check_element_wise(torch.nn.ReLU()) == "custom"
