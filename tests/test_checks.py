"""Checks of arguments: what they let pass, and what they say of the rest."""

import math
import re

import numpy as np
import pytest

from course_utils.checks import check_arguments, check_name


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
