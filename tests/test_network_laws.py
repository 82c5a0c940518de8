"""Laws of finite networks and of products against closed forms: no simulation here."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, polygamma
from scipy.stats import norm

from course_utils import network_laws
from course_utils.activations import Activation, hard_tanh, linear, relu, tanh
from course_utils.quadrature import gaussian_expectation


@pytest.mark.parametrize(("activation", "gain"), [(linear, 1.3), (relu, 1.1)])
def test_first_order_law_approaches_the_exact_one(activation, gain):
    def error(width):
        mean, variance = network_laws.log_second_moment_law(activation, gain, 2, width)
        exact_mean, exact_variance = network_laws.exact_log_growth(activation, gain, width)
        return np.array([np.diff(mean) - exact_mean, np.diff(variance) - exact_variance])

    assert (np.abs(error(1000)) < 20 / 1000**2).all()
    assert (np.abs(error(2000)) < np.abs(error(1000)) / 3.5).all()  # second order: a quarter


def test_exact_growth_in_the_smallest_layer():
    # width 1, linear: ln chi2_1 has mean psi(1/2) + ln 2 and variance pi**2 / 2
    mean, variance = network_laws.exact_log_growth(linear, 1.0, 1)
    assert math.isclose(mean, -0.5772156649015329 - math.log(2))
    assert math.isclose(variance, math.pi**2 / 2)
    # width 1, relu: given that the unit is on, the same with the gain
    assert network_laws.exact_log_growth(relu, 2.0, 1) == pytest.approx((mean + math.log(4), variance))


def test_exact_growth_of_two_units():
    # K = 1 with probability 2/3, 2 with 1/3, given that one is on; ln chi2_2 has mean ln 2 - Euler's gamma
    means = np.array([-0.5772156649015329 - math.log(2), math.log(2) - 0.5772156649015329])
    variances = np.array([math.pi**2 / 2, math.pi**2 / 6])
    mean = means @ [2 / 3, 1 / 3]
    variance = (variances + (means - mean) ** 2) @ [2 / 3, 1 / 3]
    found = network_laws.exact_log_growth(relu, 3.0, 2)
    assert found == pytest.approx((mean + math.log(9 / 2), variance), rel=1e-12)


@pytest.mark.parametrize("activation", [tanh, Activation("linear", torch.relu, torch.ones_like)])
def test_exact_growth_knows_only_two_activations_and_not_by_name(activation):
    with pytest.raises(ValueError, match=f"must be linear or relu; got {activation.name}"):
        network_laws.exact_log_growth(activation, 1.0, 8)


def check_start(law):
    def error(width):
        mean, variance = law(tanh, 1.0, 0, width)
        exact = digamma(width / 2) - math.log(width / 2), polygamma(1, width / 2)
        return np.abs([mean[0] - exact[0], variance[0] - exact[1]])

    assert (error(100) < 3 / 100**2).all()
    assert (error(200) < error(100) / 3.5).all()  # second order: a quarter


def test_the_first_order_law_starts_at_a_gaussian_input():
    check_start(network_laws.log_second_moment_law)


@pytest.mark.parametrize("fault", [(0.0, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 0.0)], ids=str)
def test_a_wrong_start_is_caught(fault):
    def wrong(*arguments):
        mean, variance = network_laws.log_second_moment_law(*arguments)
        return fault[0] * mean, fault[1] * variance

    with pytest.raises(AssertionError):
        check_start(wrong)


def test_the_first_order_law_heeds_kinks_away_from_0():
    gain, width, step = 1.3, 64, 1e-3
    mean, variance = network_laws.log_second_moment_law(hard_tanh, gain, 1, width)
    std = gain * np.exp((mean[0] + step * np.array([-1, 0, 1])) / 2)
    k = 1 / std  # truncated moments of the normal law
    below, at, above = np.log(std**2 * (2 * norm.cdf(k) - 1 - 2 * k * norm.pdf(k)) + 2 * norm.sf(k))
    k = k[1]
    fourth = std[1] ** 4 * (3 * (2 * norm.cdf(k) - 1) - 2 * (k**3 + 3 * k) * norm.pdf(k)) + 2 * norm.sf(k)
    noise = (fourth / np.exp(2 * at) - 1) / width
    curvature = (above - 2 * at + below) / step**2
    assert math.isclose(mean[1], at + curvature * variance[0] / 2 - noise / 2, abs_tol=1e-8)
    assert math.isclose(variance[1], ((above - below) / (2 * step)) ** 2 * variance[0] + noise, abs_tol=1e-8)


@pytest.mark.parametrize("gain", [-1.0, math.nan, math.inf])
def test_no_signal_has_no_logarithm(gain):
    for call in (
        lambda: network_laws.log_second_moment_law(tanh, gain, 3, 8),
        lambda: network_laws.exact_log_growth(linear, gain, 8),
    ):
        with pytest.raises(ValueError, match=f"gain.* got gain={gain:g}"):
            call()


@pytest.mark.parametrize("width", [0, -1, 4.5])
def test_no_width(width):
    for call in (
        lambda: network_laws.log_second_moment_law(tanh, 1.0, 3, width),
        lambda: network_laws.exact_log_growth(relu, 1.0, width),
    ):
        with pytest.raises(ValueError, match=f"width must be an integer.* got width={width}"):
            call()


@pytest.mark.parametrize("depth", [-1, 2.5])
def test_no_depth(depth):
    with pytest.raises(ValueError, match=f"depth must be an integer.* got depth={depth}"):
        network_laws.log_second_moment_law(tanh, 1.0, depth, 8)


def check_product_law(law, depth):
    x, density, share = law(depth)
    assert (np.diff(x) > 0).all()
    assert abs(share[-1] - 1) < 3e-4
    assert x[-1] < network_laws.product_spectrum_edge(depth) < 1.001 * x[-1]
    middle = slice(200, -50)  # away from the ends, where the density is steep
    slope = (np.diff(share) / np.diff(x))[middle]
    np.testing.assert_allclose(slope, ((density[1:] + density[:-1]) / 2)[middle], rtol=0.02)
    mass = np.diff(share, prepend=0.0, append=1.0)
    middles = np.concatenate([[0.0], (x[1:] + x[:-1]) / 2, [network_laws.product_spectrum_edge(depth)]])
    for k in (1, 2, 3):
        assert math.isclose(mass @ middles**k, network_laws.product_spectrum_moment(depth, k), rel_tol=2e-3)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_product_law_has_the_fuss_catalan_moments(depth):
    check_product_law(network_laws.product_spectrum, depth)
    with pytest.raises(AssertionError):
        check_product_law(lambda depth: network_laws.product_spectrum(depth + 1), depth)


def test_one_factor_is_marchenko_pasturs():
    x, density, share = network_laws.product_spectrum(1)
    np.testing.assert_allclose(density, np.sqrt((4 - x) / x) / (2 * math.pi), rtol=1e-7)
    t = np.arccos(np.sqrt(x) / 2)
    np.testing.assert_allclose(share, 1 - (2 * t - np.sin(2 * t)) / math.pi, atol=1e-6)
    assert network_laws.product_spectrum_edge(1) == pytest.approx(4)
    assert [network_laws.product_spectrum_moment(1, k) for k in (0, 1, 2, 3)] == [1, 1, 2, 5]  # Catalan
    assert network_laws.product_spectrum_edge(100) == pytest.approx(math.e * 100.5, rel=1e-4)


def test_the_variance_of_a_product_is_its_depth():
    for depth in (1, 2, 10):
        assert network_laws.product_spectrum_moment(depth, 2) - 1 == depth


def test_the_law_of_a_thousand_factors_is_uniform_in_the_root():
    # Newman (1986): s**(2 / L) tends to the uniform law on (0, 1); logarithms, as x itself underflows
    for depth in (100, 1000):
        x, _, share = network_laws.product_spectrum(depth)
        assert abs(share[-1] - 1) < 1e-3
        positive = x > 1e-300
        root = np.exp(np.log(x[positive]) / depth)
        assert abs(root - share[positive]).max() < 3 * math.log(depth) / depth


def test_jacobian_spread():
    assert network_laws.jacobian_spread(linear, np.ones(7), orthogonal=True) == pytest.approx(0, abs=1e-10)
    gaussian = network_laws.jacobian_spread(linear, np.ones(7), orthogonal=False)
    assert gaussian == pytest.approx(network_laws.product_spectrum_moment(7, 2) - 1)
    assert network_laws.jacobian_spread(relu, np.ones(3), orthogonal=True) == pytest.approx(3)
    assert network_laws.jacobian_spread(relu, 1.0, orthogonal=False) == pytest.approx(2)
    # tanh near 0: Var((1 - z**2)**2) = 8 q**2
    assert network_laws.jacobian_spread(tanh, 1e-3, orthogonal=True) == pytest.approx(8e-6, rel=0.02)
    # hard tanh passes a share p of the gradients: 1 / p - 1
    passed = 2 * norm.cdf(0.5) - 1
    assert network_laws.jacobian_spread(hard_tanh, 4.0, orthogonal=True) == pytest.approx(1 / passed - 1)


@pytest.mark.parametrize("q", [-1.0, math.nan, math.inf])
def test_no_second_moment_has_no_spread(q):
    with pytest.raises(ValueError, match="q must be a number"):
        network_laws.jacobian_spread(tanh, [1.0, q], orthogonal=True)


@pytest.mark.parametrize("std", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("bias", [0.0, -30.0])
def test_the_first_loss_of_two_classes_is_that_of_their_difference(bias, std):
    (loss,) = network_laws.expected_first_loss([0.25, 0.75], [[0.0, bias]], std)
    softplus = gaussian_expectation(torch.nn.functional.softplus, math.sqrt(2) * std, bias)
    assert loss == pytest.approx(softplus - 0.75 * bias, rel=1e-6)
