"""The gains behind and in front of a function, of `mean_field`, against closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm

from course_utils import mean_field, quadrature
from course_utils.activations import (
    erf,
    gelu,
    hard_tanh,
    leaky_relu,
    linear,
    relu,
    selu,
    sigmoid,
    silu,
    softsign,
    tanh,
)

BEHIND = [
    (linear, 1.0),
    (relu, math.sqrt(2)),
    (leaky_relu(0.25), math.sqrt(2 / (1 + 0.25**2))),
    (torch.nn.LeakyReLU(0.25), math.sqrt(2 / (1 + 0.25**2))),
    (erf, 1 / math.sqrt(2 / math.pi * math.asin(2 / 3))),
    (selu, 1.0),
    (torch.sign, 1.0),
    (torch.exp, math.exp(-1)),
    (lambda z: (z - 0.123).abs(), 1 / math.sqrt(1 + 0.123**2)),  # a kink, and a jump, that nobody declares
    (lambda z: (z > 0.3456).to(z.dtype), 1 / math.sqrt(norm.sf(0.3456))),
    (lambda z: 1e-3 * torch.clamp(z, max=0), 1e3 * math.sqrt(2)),
]


def check_behind(gain):
    for function, expected in BEHIND:
        assert gain(function) == pytest.approx(expected, rel=1e-7)


def test_gains_behind_against_closed_forms():
    check_behind(mean_field.gain_behind)


@pytest.mark.parametrize(
    "fault",
    [
        lambda f: mean_field.gain_behind(f) ** 2,
        lambda f: 1 / math.sqrt(quadrature.gaussian_expectation(lambda z: f(z) ** 2)),  # needs the kinks
        lambda f: mean_field.gain_in_front(f),
    ],
    ids=["variance", "kinks", "in front"],
)
def test_a_wrong_gain_behind_is_caught(fault):
    with pytest.raises((AssertionError, ValueError)):
        check_behind(fault)


def shifted_square(g):
    """Return E relu(g Z - 0.7)**2, elementary."""
    a = 0.7 / g
    return g**2 * ((1 + a**2) * norm.sf(a) - a * norm.pdf(a))


FRONT = [
    (linear, 1.0),
    (relu, math.sqrt(2)),
    (lambda z: 1e-6 * torch.relu(z), 1e6 * math.sqrt(2)),
    (leaky_relu(0.25), math.sqrt(2 / (1 + 0.25**2))),
    (selu, 1.0),
    (lambda z: torch.relu(z) ** 2, (2 / 3) ** 0.25),  # E relu(gZ)**4 = 3 g**4 / 2
    (lambda z: 0.01 * z.exp(), math.sqrt(math.log(100))),  # E exp(2 g Z) = exp(2 g**2); overflows at g > 59
    (lambda z: 2 * torch.exp(-(z**2)), math.sqrt(15 / 4)),  # falls: 4 / sqrt(1 + 4 g**2)
    (lambda z: 1.5 * torch.erf(z), math.sqrt(1 / (2 / math.sin(math.pi / 2 * 4 / 9) - 2))),  # 2.25 E erf**2
    # a jump that nobody declares: 2.25 P(g Z > 1.2345) = 1
    (lambda z: 1.5 * (z > 1.2345).to(z.dtype), 1.2345 / norm.isf(1 / 2.25)),
    # two roots: 16 E z**2 exp(-z**2) = 16 g**2 / (1 + 2 g**2)**1.5, here by bisection
    (lambda z: 4 * z * torch.exp(-(z**2) / 2), 0.278569398854934),
]


def check_in_front(gain):
    for function, expected in FRONT:
        assert gain(function) == pytest.approx(expected, rel=1e-7)


def test_gains_in_front_against_closed_forms():
    check_in_front(mean_field.gain_in_front)


@pytest.mark.parametrize(
    "fault",
    [lambda f: mean_field.gain_in_front(f) * (1 + 1e-6), mean_field.gain_behind],
    ids=["inaccurate", "behind"],
)
def test_a_wrong_gain_in_front_is_caught(fault):
    with pytest.raises((AssertionError, ValueError)):
        check_in_front(fault)


@pytest.mark.parametrize(
    ("function", "gain"),
    [
        (gelu, 1.468),
        (silu, 1.559),
        (F.mish, 1.451),
        (F.elu, 1.278),
        (lambda z: F.softplus(z) - math.log(2), 1.762),
    ],
    ids=["gelu", "silu", "mish", "elu", "softplus"],
)
def test_gains_in_front_of_what_has_no_closed_form(function, gain):
    found = mean_field.gain_in_front(function)
    assert round(found, 3) == gain
    assert quadrature.gaussian_expectation(lambda z: function(z) ** 2, found) == pytest.approx(1, abs=1e-8)


def test_a_gain_in_front_where_the_kink_shifts_the_scan():
    found = mean_field.gain_in_front(lambda z: torch.relu(z - 0.7))
    assert shifted_square(found) == pytest.approx(1, abs=1e-8)
    for jump in (0.4, 2.3, 3.8):  # the scan sees these cross an interval too early or too late
        found = mean_field.gain_in_front(lambda z, jump=jump: 1.5 * (z > jump).to(z.dtype))
        assert found == pytest.approx(jump / norm.isf(1 / 2.25), rel=1e-7)
    for log_gain in np.linspace(-1, 1, 9):  # jumps at each place between two points of the scan, and on one
        jump = norm.isf(1 / 2.25) * math.exp(log_gain)
        found = mean_field.gain_in_front(lambda z, jump=jump: 1.5 * (z > jump).to(z.dtype))
        assert found == pytest.approx(math.exp(log_gain), rel=1e-7)


@pytest.mark.parametrize(
    "function", [tanh, sigmoid, erf, softsign, hard_tanh, torch.sign, torch.cos, torch.exp, torch.zeros_like]
)
def test_functions_without_a_gain_in_front(function):
    with pytest.raises(ValueError, match=r"has no gain in front: E phi\(g Z\)\*\*2 crosses 1 at no g"):
        mean_field.gain_in_front(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: torch.exp(z**2 / 3) / 2, "grows too fast"),
        (lambda z: torch.softmax(z, -1), "each element its own value"),
        (lambda z: z.sum(), "must keep shape"),
        (torch.sqrt, "sqrt must be finite"),
        (lambda z: torch.where(z > 5, math.nan, z), "must be finite on the whole line"),
    ],
)
@pytest.mark.parametrize("gain", [mean_field.gain_behind, mean_field.gain_in_front], ids=["behind", "front"])
def test_functions_without_a_gain(gain, function, message):
    with pytest.raises(ValueError, match=message):
        gain(function)


def test_nothing_makes_up_for_a_function_that_is_0():
    with pytest.raises(ValueError, match="zeros_like is 0 on the whole line"):
        mean_field.gain_behind(torch.zeros_like)
