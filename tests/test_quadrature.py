"""Expectations against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import owens_t
from scipy.stats import norm

from course_utils import quadrature
from course_utils.activations import gelu, hard_tanh, relu, sigmoid, silu, softsign, tanh

STDS = np.array([1e-6, 0.03, 1.0, 7.0, 300.0])


def check_expectation(expectation):
    np.testing.assert_allclose(expectation(torch.relu, STDS), STDS / math.sqrt(2 * math.pi), rtol=1e-12)
    np.testing.assert_allclose(expectation(lambda z: z**4, STDS), 3 * STDS**4, rtol=1e-12)
    np.testing.assert_allclose(expectation(torch.cos, STDS[:3]), np.exp(-(STDS[:3] ** 2) / 2), rtol=1e-12)
    # E erf(s Z)**2 = (2 / pi) arcsin(2 s**2 / (1 + 2 s**2)): Williams (1997)
    exact = 2 / math.pi * np.arcsin(2 * STDS**2 / (1 + 2 * STDS**2))
    np.testing.assert_allclose(expectation(lambda z: torch.erf(z) ** 2, STDS), exact, rtol=1e-10)


def test_gaussian_expectation_against_closed_forms():
    check_expectation(quadrature.gaussian_expectation)


def test_a_rule_that_ignores_the_kink_is_caught():
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)

    def gauss_hermite(function, std):
        return function(torch.from_numpy(np.multiply.outer(std, nodes))).numpy() @ weights / weights.sum()

    with pytest.raises(AssertionError):
        check_expectation(gauss_hermite)


def test_expectation_of_a_scalar_is_a_scalar():
    assert np.ndim(quadrature.gaussian_expectation(torch.relu)) == 0


@pytest.mark.parametrize("kinks", [(0.0,), (-1.0, 1.0)])
def test_expectations_of_no_laws(kinks):
    assert quadrature.gaussian_expectation(torch.relu, np.ones((2, 0)), kinks=kinks).shape == (2, 0)


def test_a_function_with_parameters_that_learn():
    prelu = torch.nn.PReLU(init=0.5, dtype=torch.float64)  # weights that require a gradient
    assert quadrature.gaussian_expectation(prelu) == pytest.approx(0.5 / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("std", [math.nan, math.inf, -1.0])
def test_an_expectation_names_a_std_that_it_is_not(std):
    with pytest.raises(ValueError, match=f"finite std >= 0; got mean 0.0 and std {std}"):
        quadrature.gaussian_expectation(torch.relu, std)


@pytest.mark.parametrize("mean", [math.nan, math.inf])
def test_an_expectation_names_a_mean_that_is_not_finite(mean):
    with pytest.raises(ValueError, match=f"finite mean .*; got mean {mean} and std 1.0"):
        quadrature.gaussian_expectation(torch.relu, 1.0, mean)


def hard_tanh_second_moment(std):
    """Return E hard_tanh(std Z)**2 from the truncated moments of the normal law."""
    k = 1 / std
    return std**2 * (2 * norm.cdf(k) - 1 - 2 * k * norm.pdf(k)) + 2 * norm.sf(k)


def test_declared_kinks_cost_no_accuracy_and_others_a_little():
    def square(z):
        return torch.nn.functional.hardtanh(z) ** 2

    exact = hard_tanh_second_moment(STDS)
    declared = quadrature.gaussian_expectation(square, STDS, kinks=(-1, 1))
    np.testing.assert_allclose(declared, exact, rtol=1e-10)
    undeclared = np.abs(quadrature.gaussian_expectation(square, STDS) - exact)
    assert 1e-7 < undeclared.max() < 1e-4


def test_expectation_about_another_mean():
    mean, std = np.array([[-3.0], [0.0], [0.2]]), np.array([0.5, 2.0])
    exact = mean * norm.cdf(mean / std) + std * norm.pdf(mean / std)
    found = quadrature.gaussian_expectation(torch.relu, std, mean)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-14)
    assert quadrature.gaussian_expectation(torch.relu, 0.0, mean).ravel() == pytest.approx([0, 0, 0.2])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z.numpy(), "must keep the shape .* it returned"),
        (lambda z: z.sum(), r"must keep the shape \([\d, ]+\); it returned "),
        (lambda z: z[..., :3], "must keep the shape .* it returned"),
        (lambda z: z.log(), "returned nan or inf"),
        (lambda z: 1 / (z > 0), "returned nan or inf"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        quadrature.gaussian_expectation,
        quadrature.adaptive_expectation,
        lambda function: quadrature.pair_expectation(function, 0.5, 1.0, (0.0,)),
    ],
    ids=["fixed", "adaptive", "pair"],
)
def test_a_function_that_no_expectation_can_be_taken_of(call, function, message):
    with pytest.raises(ValueError, match=message):
        call(function)


COSINES = np.array([-1, -0.999, -0.5, 0, 0.3, 0.9, 0.999, 1 - 1e-6, 1])
Q = 2.3


def check_pairs(pair_expectation):
    """Compare with Cho & Saul's arc-cosine kernels, Williams's arcsine kernel and the identity."""
    angle = np.arccos(COSINES)
    both_on = (1 - angle / math.pi) / 2
    arc_cosine = Q * (np.sin(angle) / (2 * math.pi) + COSINES * both_on)
    arcsine = 2 / math.pi * np.arcsin(2 * Q * COSINES / (1 + 2 * Q))
    for function, exact in [
        (lambda z: z, Q * COSINES),
        (torch.relu, arc_cosine),
        (relu.derivative, both_on),
        (torch.erf, arcsine),
    ]:
        np.testing.assert_allclose(pair_expectation(function, COSINES, Q), exact, rtol=1e-12, atol=1e-13)


def pairs(function, c, q):
    return quadrature.pair_expectation(function, c, q, (0.0,))


def test_pairs_against_closed_forms():
    check_pairs(pairs)


@pytest.mark.parametrize(
    "fault",
    [
        lambda f, c, q: pairs(f, 0.999 * c, q),
        lambda f, c, q: pairs(f, c, 1.001 * q),
        lambda f, c, q: pairs(f, np.abs(c), q),
        lambda f, c, q: quadrature.pair_expectation(f, c, q, (0.5,)),
    ],
    ids=["correlation", "second moment", "sign", "kink"],
)
def test_wrong_pairs_are_caught(fault):
    with pytest.raises(AssertionError):
        check_pairs(fault)


@pytest.mark.parametrize("c", [-0.9999, -0.9, -0.3, 0.2, 0.95])
@pytest.mark.parametrize("function", [hard_tanh, lambda z: (z - 1).abs()], ids=["hard tanh", "one-sided"])
def test_kinks_away_from_0_in_pairs(function, c):
    # Price's theorem: d/dc E phi(z1) phi(z2) = q E phi'(z1) phi'(z2)
    step, kinks = 1e-3 * (1 - abs(c)), (-1.0, 1.0)
    slope = hard_tanh.derivative if function is hard_tanh else lambda z: torch.sign(z - 1)
    below, above = quadrature.pair_expectation(function, [c - step, c + step], 2.0, kinks)
    expected = 2 * quadrature.pair_expectation(slope, c, 2.0, kinks)
    assert math.isclose((above - below) / (2 * step), expected, rel_tol=1e-6)


def test_a_jump_away_from_0_in_pairs():
    # P(z1 < h, z2 < h) = Phi(h) - 2 T(h, sqrt((1 - c) / (1 + c))), T of Owen (1956)
    c, q = np.array([-0.9999, -0.3, 0.2, 0.95, 0.9999]), 4.0
    exact = norm.cdf(0.5) - 2 * owens_t(0.5, np.sqrt((1 - c) / (1 + c)))
    found = quadrature.pair_expectation(lambda z: (z < 1).to(z.dtype), c, q, (1.0,))
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("c", "q", "message"),
    [
        (0.5, 0.0, "needs 0 < q < inf; got 0.0"),
        (0.5, -1.0, "needs 0 < q < inf; got -1.0"),
        (0.5, math.inf, "needs 0 < q < inf; got inf"),
        (0.5, math.nan, "needs 0 < q < inf; got nan"),
        (1.1, 1.0, "between -1 and 1; got 1.1"),
        (-1.1, 1.0, "between -1 and 1; got -1.1"),
        (math.nan, 1.0, "between -1 and 1; got nan"),
    ],
)
def test_a_correlation_that_cannot_be(c, q, message):
    with pytest.raises(ValueError, match=f"a correlation.*{message}"):
        pairs(torch.tanh, c, q)


def test_a_correlation_rounded_above_1_is_forgiven():
    assert pairs(torch.relu, np.nextafter(1.0, 2.0), 1.0) == pytest.approx(0.5, abs=1e-14)
    assert pairs(torch.relu, float(np.nextafter(np.float32(1), np.float32(2))), 1.0) == pytest.approx(0.5)


JUMP = 0.3456


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda z: z**2, 1.0),
        (lambda z: torch.relu(z) ** 2, 0.5),
        (lambda z: (5 * z).exp(), math.exp(12.5)),
        (lambda z: (z > JUMP).to(z.dtype), norm.sf(JUMP)),  # a jump, and a kink, that nobody declares
        (lambda z: (z - JUMP).abs(), 2 * norm.pdf(JUMP) + JUMP * (1 - 2 * norm.sf(JUMP))),
        (lambda z: torch.sin(50 * z) ** 2, 0.5),
        (lambda z: 1e-30 * z**4, 3e-30),
        (torch.zeros_like, 0.0),
    ],
)
def test_adaptive_expectation_against_closed_forms(function, expected):
    assert quadrature.adaptive_expectation(function) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("activation", [gelu, silu, tanh, sigmoid, softsign, hard_tanh], ids=lambda a: a.name)
def test_adaptive_expectation_agrees_with_scipy(activation):
    def density(z):
        return activation(torch.tensor(z, dtype=torch.float64)).item() ** 2 * norm.pdf(z)

    moment, _ = quad(density, -12, 12, points=[-1, 0, 1], epsabs=1e-12, epsrel=1e-12)
    found = quadrature.adaptive_expectation(lambda z: activation(z) ** 2)
    assert found == pytest.approx(moment, rel=1e-9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: torch.exp(z**2 / 2.2), "grows too fast: no limit within 12 standard deviations"),
        (lambda z: torch.exp(torch.relu(z) ** 2 / 2.2), "grows too fast"),  # on one side
        (lambda z: torch.sin(1e6 * z) ** 2, "oscillates too fast"),
        (lambda z: torch.where(z > 5, math.nan, z**2), "must be finite on the whole line"),
    ],
)
def test_functions_without_an_expectation(function, message):
    with pytest.raises(ValueError, match=message):
        quadrature.adaptive_expectation(function)


def test_what_happens_within_a_ten_thousandth_of_a_kink_is_resolved():
    """E sech²(kZ) is 2φ(0)/k, less a share of π²/(24 k²), for a narrow peak."""
    k = 1e4
    exact = 2 / k / math.sqrt(2 * math.pi) * (1 - math.pi**2 / 24 / k**2)
    assert quadrature.gaussian_expectation(
        lambda z: torch.cosh(k * z).reciprocal().square()
    ) == pytest.approx(exact, rel=1e-9)


def test_panels_end_at_whole_numbers_and_shrink_towards_a_kink():
    nodes, weights = quadrature._rule(np.array([0.25]))
    ends = {-12, -8, -5, -3, -1, 1, 3, 5, 8, 12, 0.25}
    ends = sorted(ends | {0.25 + sign * 1.5 / 4**k for sign in (-1, 1) for k in range(10)})
    panels = nodes.reshape(-1, 16)
    np.testing.assert_allclose(panels.mean(axis=1), (np.array(ends[1:]) + ends[:-1]) / 2, atol=1e-12)
    np.testing.assert_allclose(weights.reshape(panels.shape).sum(axis=1), np.diff(norm.cdf(ends)), atol=1e-14)
