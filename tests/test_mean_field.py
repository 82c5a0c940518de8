"""Theory against closed forms: no simulation here."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, polygamma

from course_utils import mean_field
from course_utils.activations import Activation, leaky_relu, linear, relu, sigmoid, softsign, tanh

STDS = np.array([1e-6, 0.03, 1.0, 7.0, 300.0])


def check_expectation(expectation):
    np.testing.assert_allclose(expectation(torch.relu, STDS), STDS / math.sqrt(2 * math.pi), rtol=1e-12)
    np.testing.assert_allclose(expectation(lambda z: z**4, STDS), 3 * STDS**4, rtol=1e-12)
    np.testing.assert_allclose(expectation(torch.cos, STDS[:3]), np.exp(-(STDS[:3] ** 2) / 2), rtol=1e-12)
    # E erf(s Z)**2 = (2 / pi) arcsin(2 s**2 / (1 + 2 s**2)): Williams (1997)
    exact = 2 / math.pi * np.arcsin(2 * STDS**2 / (1 + 2 * STDS**2))
    np.testing.assert_allclose(expectation(lambda z: torch.erf(z) ** 2, STDS), exact, rtol=1e-10)


def test_gaussian_expectation_against_closed_forms():
    check_expectation(mean_field.gaussian_expectation)


def test_a_rule_that_ignores_the_kink_is_caught():
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)

    def gauss_hermite(function, std):
        return function(torch.from_numpy(np.multiply.outer(std, nodes))).numpy() @ weights / weights.sum()

    with pytest.raises(AssertionError):
        check_expectation(gauss_hermite)


def test_expectation_of_a_scalar_is_a_scalar():
    assert np.ndim(mean_field.gaussian_expectation(torch.relu)) == 0


def test_a_function_that_changes_the_shape():
    with pytest.raises(ValueError, match=r"must keep the shape \(672,\); it returned \(\)"):
        mean_field.gaussian_expectation(lambda z: z.sum())


def test_a_function_that_returns_nan():
    with pytest.raises(ValueError, match="must be finite"):
        mean_field.gaussian_expectation(torch.sqrt)


@pytest.mark.parametrize(
    ("activation", "share"), [(linear, 1.0), (relu, 0.5), (leaky_relu(0.25), (1 + 0.25**2) / 2)]
)
def test_length_map_of_homogeneous_activations(activation, share):
    q = np.array([1e-12, 1.0, 1e12])
    np.testing.assert_allclose(mean_field.length_map(q, activation, gain=3.0), 9 * share * q, rtol=1e-12)


def test_length_map_takes_the_gain_as_a_standard_deviation():
    one, two = (mean_field.length_map(1.0, tanh, gain=g) for g in (1.0, 2.0))
    assert math.isclose(two, 4 * one)


def test_tanh_map_has_the_series_of_the_derivation():
    q = 1e-3
    series = q - 2 * q**2 + 17 / 3 * q**3
    assert abs(mean_field.length_map(q, tanh) - series) < 25 * q**4


def test_tanh_decays_as_a_power_law():
    m = mean_field.second_moment_profile(tanh, 1.0, 10_000)
    offset = [1 / m[depth] - 2 * depth + 5 / 6 * math.log(depth) for depth in (1_000, 10_000)]
    assert abs(offset[0] - offset[1]) < 2e-3


def test_profile_starts_at_the_input_and_follows_the_map():
    m = mean_field.second_moment_profile(relu, 2.0, 5, start=3.0)
    np.testing.assert_allclose(m, 3.0 * 2.0 ** np.arange(6), rtol=1e-12)


def test_fixed_points():
    assert mean_field.fixed_point(tanh, 0.9) == 0
    assert mean_field.fixed_point(tanh, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.5) == np.inf
    for activation, gain in [(tanh, 1.01), (tanh, 10.0), (sigmoid, 1.0), (softsign, 3.0)]:
        q = mean_field.fixed_point(activation, gain)
        assert math.isclose(mean_field.length_map(q, activation, gain), q, rel_tol=1e-9)


@pytest.mark.parametrize(("activation", "gain"), [(relu, math.sqrt(2)), (linear, 1.0)])
def test_a_line_of_fixed_points_is_refused(activation, gain):
    with pytest.raises(ValueError, match="every q is a fixed point"):
        mean_field.fixed_point(activation, gain)


def test_chi_1():
    assert math.isclose(mean_field.chi_1(relu, math.sqrt(2), 5.0), 1.0)
    assert math.isclose(mean_field.chi_1(tanh, 1.3, 0.0), 1.3**2)
    # large gain: E sech(s Z)**4 ~ (4/3) / sqrt(2 pi) / s
    q = mean_field.fixed_point(tanh, 200.0)
    expected = 200.0**2 * 4 / 3 / math.sqrt(2 * math.pi * q)
    assert math.isclose(mean_field.chi_1(tanh, 200.0, q), expected, rel_tol=1e-3)


def test_sigmoid_is_critical_at_gain_10():
    q = mean_field.fixed_point(sigmoid, 10.149)
    assert abs(mean_field.chi_1(sigmoid, 10.149, q) - 1) < 1e-3


@pytest.mark.parametrize(("activation", "gain"), [(linear, 1.3), (relu, 1.1)])
def test_first_order_law_approaches_the_exact_one(activation, gain):
    def error(width):
        mean, variance = mean_field.log_second_moment_law(activation, gain, 1, width)
        exact_mean, exact_variance = mean_field.exact_log_growth(activation, gain, width)
        return np.array([mean[1] - mean[0] - exact_mean, variance[1] - variance[0] - exact_variance])

    assert (np.abs(error(1000)) < 20 / 1000**2).all()
    assert (np.abs(error(2000)) < np.abs(error(1000)) / 3.5).all()  # second order: a quarter


def test_exact_growth_in_the_smallest_layer():
    # width 1, linear: ln chi2_1 has mean psi(1/2) + ln 2 and variance pi**2 / 2
    mean, variance = mean_field.exact_log_growth(linear, 1.0, 1)
    assert math.isclose(mean, -0.5772156649015329 - math.log(2))
    assert math.isclose(variance, math.pi**2 / 2)
    # width 1, relu: given that the unit is on, the same with the gain
    assert math.isclose(mean_field.exact_log_growth(relu, 2.0, 1)[0], mean + math.log(4))


def test_exact_growth_is_not_taken_in_by_a_name():
    with pytest.raises(ValueError, match="must be linear or relu"):
        mean_field.exact_log_growth(Activation("linear", torch.relu, torch.ones_like), 1.0, 8)


def test_exact_growth_knows_only_two_activations():
    with pytest.raises(ValueError, match="must be linear or relu; got tanh"):
        mean_field.exact_log_growth(tanh, 1.0, 8)


def test_crossing_layer():
    assert math.isclose(mean_field.crossing_layer(2.0**30, 2.0), 30)
    assert math.isclose(mean_field.crossing_layer(0.5**30, 0.5), 30)
    assert math.ceil(mean_field.crossing_layer(torch.finfo(torch.float32).max, math.sqrt(512))) == 29


def test_relu_cosine_map_against_quadrature():
    c = 0.3
    # E relu(x) relu(y) for correlation c, conditioning y on x: mean c x, std s
    s = math.sqrt(1 - c**2)

    def inner(x):
        m = c * x
        density = torch.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        return torch.relu(x) * (m * (1 + torch.erf(m / s / math.sqrt(2))) / 2 + s * density)

    expected = 2 * mean_field.gaussian_expectation(inner)
    assert math.isclose(mean_field.relu_cosine_map(c), expected, rel_tol=1e-10)


def test_relu_cosine_map_ends():
    assert mean_field.relu_cosine_map(1.0) == 1
    assert mean_field.relu_cosine_map(-1.0) == pytest.approx(0, abs=1e-15)
    assert mean_field.relu_cosine_map(0.0) == pytest.approx(1 / math.pi)


def test_relu_cosine_map_forgives_a_cosine_rounded_above_1():
    assert mean_field.relu_cosine_map(np.nextafter(1.0, 2.0)) == 1
    assert mean_field.relu_cosine_map(np.nextafter(-1.0, -2.0)) == pytest.approx(0, abs=1e-15)


def check_start(law):
    def error(width):
        mean, variance = law(tanh, 1.0, 0, width)
        exact = digamma(width / 2) - math.log(width / 2), polygamma(1, width / 2)
        return np.abs([mean[0] - exact[0], variance[0] - exact[1]])

    assert (error(100) < 3 / 100**2).all()
    assert (error(200) < error(100) / 3.5).all()  # second order: a quarter


def test_the_first_order_law_starts_at_a_gaussian_input():
    check_start(mean_field.log_second_moment_law)


@pytest.mark.parametrize("fault", [(0.0, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 0.0)], ids=str)
def test_a_wrong_start_is_caught(fault):
    def wrong(*arguments):
        mean, variance = mean_field.log_second_moment_law(*arguments)
        return fault[0] * mean, fault[1] * variance

    with pytest.raises(AssertionError):
        check_start(wrong)


def test_profile_starts_at_1_unless_told():
    m = mean_field.second_moment_profile(tanh, 1.3, 1)
    assert m.tolist() == [1.0, mean_field.output_second_moment(1.3**2, tanh)]


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_fixed_point_refuses_a_gain_without_a_signal(gain):
    with pytest.raises(ValueError, match=f"gain.* got {gain}"):
        mean_field.fixed_point(tanh, gain)


@pytest.mark.parametrize(
    ("limit", "factor"),
    [
        (0.5, 1.0),
        (0.5, 0.0),
        (0.5, -2.0),
        (2.0, 1.0),
        (2.0, 0.0),
        (2.0, -2.0),
        (2.0, 0.5),
        (0.5, 2.0),
        (0.0, 0.5),
        (2.0, math.nan),
    ],
)
def test_a_limit_that_is_never_crossed_is_refused(limit, factor):
    with pytest.raises(ValueError, match=f"{factor} per layer never crosses {limit}"):
        mean_field.crossing_layer(limit, factor)


@pytest.mark.parametrize("std", [math.nan, math.inf])
def test_an_expectation_names_a_std_that_is_not_finite(std):
    with pytest.raises(ValueError, match=f"std.* must be finite; got {std}"):
        mean_field.gaussian_expectation(torch.relu, std)
