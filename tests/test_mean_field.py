"""Theory against closed forms: no simulation here."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import digamma, polygamma
from scipy.stats import norm

from course_utils import finite_width, mean_field
from course_utils.activations import (
    Activation,
    erf,
    from_function,
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
    with pytest.raises(ValueError, match=r"must keep the shape \(\d+,\); it returned \(\)"):
        mean_field.gaussian_expectation(lambda z: z.sum())


def test_a_function_with_parameters_that_learn():
    prelu = torch.nn.PReLU(init=0.5, dtype=torch.float64)  # weights that require a gradient
    assert mean_field.gaussian_expectation(prelu) == pytest.approx(0.5 / math.sqrt(2 * math.pi))


def test_a_function_that_returns_nan():
    with pytest.raises(ValueError, match="must be finite"):
        mean_field.gaussian_expectation(torch.sqrt)


@pytest.mark.parametrize(
    ("activation", "share"), [(linear, 1.0), (relu, 0.5), (leaky_relu(0.25), (1 + 0.25**2) / 2)]
)
def test_length_map_of_homogeneous_activations(activation, share):
    q = np.array([1e-12, 1.0, 1e12])
    np.testing.assert_allclose(mean_field.length_map(activation, q, gain=3.0), 9 * share * q, rtol=1e-12)


def test_length_map_takes_the_gain_as_a_standard_deviation():
    one, two = (mean_field.length_map(tanh, 1.0, gain=g) for g in (1.0, 2.0))
    assert math.isclose(two, 4 * one)


def test_tanh_map_has_the_series_of_the_derivation():
    q = 1e-3
    series = q - 2 * q**2 + 17 / 3 * q**3
    assert abs(mean_field.length_map(tanh, q) - series) < 25 * q**4


def test_tanh_decays_as_a_power_law():
    m = mean_field.second_moments(tanh, 1.0, 10_000)
    offset = [1 / m[depth] - 2 * depth + 5 / 6 * math.log(depth) for depth in (1_000, 10_000)]
    assert abs(offset[0] - offset[1]) < 2e-3


def test_profile_starts_at_the_input_and_follows_the_map():
    m = mean_field.second_moments(relu, 2.0, 5, start=3.0)
    np.testing.assert_allclose(m, 3.0 * 2.0 ** np.arange(6), rtol=1e-12)


def test_fixed_points():
    assert mean_field.fixed_point(tanh, 0.9) == 0
    assert mean_field.fixed_point(tanh, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.5) == np.inf
    for activation, gain in [(tanh, 1.01), (tanh, 10.0), (sigmoid, 1.0), (softsign, 3.0)]:
        q = mean_field.fixed_point(activation, gain)
        assert math.isclose(mean_field.length_map(activation, q, gain), q, rel_tol=1e-9)


@pytest.mark.parametrize(("activation", "gain"), [(relu, math.sqrt(2)), (linear, 1.0)])
def test_on_a_line_of_fixed_points_q_stays_where_it_starts(activation, gain):
    assert mean_field.fixed_point(activation, gain, start=0.7) == 0.7
    with pytest.raises(ValueError, match=f"every q is a fixed point of {activation.name} at gain"):
        mean_field.fixed_points(activation, gain)


def test_chi_1():
    assert math.isclose(mean_field.chi_1(relu, 5.0, math.sqrt(2)), 1.0)
    assert math.isclose(mean_field.chi_1(tanh, 0.0, 1.3), 1.3**2)
    np.testing.assert_allclose(mean_field.chi_1(relu, math.inf, [1.0, 2.0]), [0.5, 2.0])
    # large gain: E sech(s Z)**4 ~ (4/3) / sqrt(2 pi) / s
    q = mean_field.fixed_point(tanh, 200.0)
    expected = 200.0**2 * 4 / 3 / math.sqrt(2 * math.pi * q)
    assert math.isclose(mean_field.chi_1(tanh, q, 200.0), expected, rel_tol=1e-3)


def test_sigmoid_is_critical_at_gain_10():
    q = mean_field.fixed_point(sigmoid, 10.149)
    assert abs(mean_field.chi_1(sigmoid, q, 10.149) - 1) < 1e-3


@pytest.mark.parametrize(("activation", "gain"), [(linear, 1.3), (relu, 1.1)])
def test_first_order_law_approaches_the_exact_one(activation, gain):
    def error(width):
        mean, variance = finite_width.log_second_moment_law(activation, gain, 1, width)
        exact_mean, exact_variance = finite_width.exact_log_growth(activation, gain, width)
        return np.array([mean[1] - mean[0] - exact_mean, variance[1] - variance[0] - exact_variance])

    assert (np.abs(error(1000)) < 20 / 1000**2).all()
    assert (np.abs(error(2000)) < np.abs(error(1000)) / 3.5).all()  # second order: a quarter


def test_exact_growth_in_the_smallest_layer():
    # width 1, linear: ln chi2_1 has mean psi(1/2) + ln 2 and variance pi**2 / 2
    mean, variance = finite_width.exact_log_growth(linear, 1.0, 1)
    assert math.isclose(mean, -0.5772156649015329 - math.log(2))
    assert math.isclose(variance, math.pi**2 / 2)
    # width 1, relu: given that the unit is on, the same with the gain
    assert math.isclose(finite_width.exact_log_growth(relu, 2.0, 1)[0], mean + math.log(4))


def test_exact_growth_is_not_taken_in_by_a_name():
    with pytest.raises(ValueError, match="must be linear or relu"):
        finite_width.exact_log_growth(Activation("linear", torch.relu, torch.ones_like), 1.0, 8)


def test_exact_growth_knows_only_two_activations():
    with pytest.raises(ValueError, match="must be linear or relu; got tanh"):
        finite_width.exact_log_growth(tanh, 1.0, 8)


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
    check_start(finite_width.log_second_moment_law)


def test_the_first_order_law_heeds_kinks_away_from_0():
    gain, width = 1.0, 64
    mean, variance = finite_width.log_second_moment_law(hard_tanh, gain, 1, width)
    step = 1e-3
    std = np.exp((mean[0] + step * np.array([-1, 0, 1])) / 2)
    below, at, above = np.log(hard_tanh_second_moment(std))
    k = 1 / std[1]
    fourth = std[1] ** 4 * (3 * (2 * norm.cdf(k) - 1) - 2 * (k**3 + 3 * k) * norm.pdf(k)) + 2 * norm.sf(k)
    noise = (fourth / np.exp(2 * at) - 1) / width
    curvature = (above - 2 * at + below) / step**2
    assert math.isclose(mean[1], at + curvature * variance[0] / 2 - noise / 2, abs_tol=1e-8)
    assert math.isclose(variance[1], ((above - below) / (2 * step)) ** 2 * variance[0] + noise, abs_tol=1e-8)


@pytest.mark.parametrize("fault", [(0.0, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 0.0)], ids=str)
def test_a_wrong_start_is_caught(fault):
    def wrong(*arguments):
        mean, variance = finite_width.log_second_moment_law(*arguments)
        return fault[0] * mean, fault[1] * variance

    with pytest.raises(AssertionError):
        check_start(wrong)


def test_profile_starts_at_1_unless_told():
    m = mean_field.second_moments(tanh, 1.3, 1)
    assert m.tolist() == [1.0, mean_field.output_second_moment(tanh, 1.3**2)]


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
    with pytest.raises(ValueError, match=f"std.* must be finite; got 0.0 and {std}"):
        mean_field.gaussian_expectation(torch.relu, std)


def hard_tanh_second_moment(std):
    """Return E hard_tanh(std Z)**2 from the truncated moments of the normal law."""
    k = 1 / std
    return std**2 * (2 * norm.cdf(k) - 1 - 2 * k * norm.pdf(k)) + 2 * norm.sf(k)


def test_declared_kinks_cost_no_accuracy_and_others_a_little():
    def square(z):
        return torch.nn.functional.hardtanh(z) ** 2

    exact = hard_tanh_second_moment(STDS)
    np.testing.assert_allclose(
        mean_field.gaussian_expectation(square, STDS, kinks=(-1, 1)), exact, rtol=1e-10
    )
    np.testing.assert_allclose(mean_field.output_second_moment(hard_tanh, STDS**2), exact, rtol=1e-10)
    undeclared = np.abs(mean_field.gaussian_expectation(square, STDS) - exact)
    assert 1e-7 < undeclared.max() < 1e-4
    assert (mean_field.quadrature_error(square, STDS) >= undeclared / 2)[undeclared > 1e-9].all()
    assert mean_field.quadrature_error(square, STDS, kinks=(-1, 1)).max() < 1e-10


def test_expectation_about_another_mean():
    mean, std = np.array([[-3.0], [0.0], [0.2]]), np.array([0.5, 2.0])
    exact = mean * norm.cdf(mean / std) + std * norm.pdf(mean / std)
    found = mean_field.gaussian_expectation(torch.relu, std, mean)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-14)
    assert mean_field.gaussian_expectation(torch.relu, 0.0, mean).ravel() == pytest.approx([0, 0, 0.2])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: max(z, 0), "must take a tensor of any shape; on .*ambiguous"),
        (lambda z: math.tanh(z), "must take a tensor of any shape; on "),
        (lambda z: z.numpy(), "must keep the shape .* it returned ndarray"),
        (lambda z: z[..., :3], "must keep the shape .* it returned"),
        (lambda z: z.log(), "returned nan or inf"),
    ],
)
def test_a_function_that_no_expectation_can_be_taken_of(function, message):
    for call in (mean_field.gaussian_expectation, mean_field.quadrature_error):
        with pytest.raises(ValueError, match=message):
            call(function)
    with pytest.raises(ValueError, match=message):
        mean_field.correlation_map(Activation("bad", function, torch.ones_like), 0.5, 1.0)


COSINES = np.array([-1, -0.999, -0.5, 0, 0.3, 0.9, 0.999, 1 - 1e-6, 1])


def check_pair_maps(correlation_map, gradient_map):
    """Compare with Cho & Saul's arc-cosine kernels, Williams's arcsine kernel and a linear network."""
    gain, bias, q = 1.3, 0.4, 2.3
    angle = np.arccos(COSINES)
    np.testing.assert_allclose(
        correlation_map(relu, COSINES, q), mean_field.relu_cosine_map(COSINES), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(gradient_map(COSINES, q, relu), 1 - angle / math.pi, rtol=1e-12, atol=1e-14)

    def kernel(c):
        return gain**2 * 2 / math.pi * np.arcsin(2 * q * c / (1 + 2 * q)) + bias**2

    np.testing.assert_allclose(correlation_map(erf, COSINES, q, gain, bias), kernel(COSINES) / kernel(1.0))
    np.testing.assert_allclose(
        correlation_map(linear, COSINES, q, gain, bias),
        (gain**2 * q * COSINES + bias**2) / (gain**2 * q + bias**2),
    )
    # E phi'(z1) phi'(z2) is, up to q, the derivative in c of E phi(z1) phi(z2): of Williams's kernel here
    np.testing.assert_allclose(
        gradient_map(COSINES, q, erf), np.sqrt((1 + 4 * q) / ((1 + 2 * q) ** 2 - 4 * q**2 * COSINES**2))
    )


def test_pair_maps_against_closed_forms():
    check_pair_maps(mean_field.correlation_map, mean_field.gradient_correlation_map)


def test_planted_faults_in_the_pair_maps_are_caught():
    def cosine_of_the_conditional_std(c, q, activation, gain=1.0, bias_std=0.0):
        return mean_field.correlation_map(activation, 0.999 * np.asarray(c), q, gain, bias_std)

    def bias_as_a_variance(c, q, activation, gain=1.0, bias_std=0.0):
        return mean_field.correlation_map(activation, c, q, gain, math.sqrt(bias_std))

    for fault in (cosine_of_the_conditional_std, bias_as_a_variance):
        with pytest.raises(AssertionError):
            check_pair_maps(fault, mean_field.gradient_correlation_map)
    with pytest.raises(AssertionError):
        check_pair_maps(mean_field.correlation_map, mean_field.correlation_map)


one_sided = from_function(lambda z: (z - 1).abs(), name="one_sided", kinks=(1.0,))


@pytest.mark.parametrize("activation", [hard_tanh, one_sided], ids=lambda a: a.name)
@pytest.mark.parametrize("c", [-0.9999, -0.9, -0.3, 0.2, 0.95])
def test_kinks_away_from_0_in_the_pair_maps(activation, c):
    # Price's theorem: d/dc E phi(z1) phi(z2) = q E phi'(z1) phi'(z2)
    q, step = 2.0, 1e-3 * (1 - abs(c))
    m = mean_field.output_second_moment(activation, q)
    below, above = mean_field.correlation_map(activation, [c - step, c + step], q) * m
    slope = mean_field.gradient_correlation_map(activation, c, q) * mean_field.chi_1(activation, q, 1.0)
    assert math.isclose((above - below) / (2 * step), q * slope, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("c", "q"), [(0.5, 0.0), (0.5, math.inf), (0.5, math.nan), (1.1, 1.0), (math.nan, 1.0)]
)
def test_a_correlation_that_cannot_be(c, q):
    with pytest.raises(ValueError, match="a correlation"):
        mean_field.correlation_map(tanh, c, q)


def test_a_correlation_rounded_above_1_is_forgiven():
    assert mean_field.correlation_map(tanh, np.nextafter(1.0, 2.0), 1.0) == pytest.approx(1, abs=1e-14)


def test_cosine_profile():
    c = [0.1]
    for _ in range(4):
        c.append(float(mean_field.relu_cosine_map(c[-1])))
    np.testing.assert_allclose(mean_field.cosines(relu, 3.0, 4, 0.1, start=5.0), c, rtol=1e-12)
    # linear with biases: cosine and second moment of the pre-activations, layer by layer
    profile = mean_field.cosines(linear, 2.0, 2, 0.5, bias_std=3.0, start=1.5)
    q, k = 1.5, 0.75
    for expected in profile[1:]:
        q, k = 4 * q + 9, 4 * k + 9
        assert math.isclose(k / q, expected)


def test_second_moment_profile_with_biases():
    np.testing.assert_allclose(mean_field.second_moments(linear, 2.0, 2, 1.5, bias_std=3.0), [1.5, 15, 69])


def test_fixed_points_with_biases_on_a_grid():
    gain, bias = np.meshgrid([0.5, 1.0, 1.3], [0.1, 0.5])
    # q = (gain**2 / 2) q + bias**2
    np.testing.assert_allclose(mean_field.fixed_point(relu, gain, bias), bias**2 / (1 - gain**2 / 2))
    assert (mean_field.fixed_point(relu, math.sqrt(2), bias) == math.inf).all()
    for activation in (tanh, erf, sigmoid, hard_tanh):
        q = mean_field.fixed_point(activation, gain, bias)
        assert q.shape == gain.shape
        np.testing.assert_allclose(mean_field.length_map(activation, q, gain, bias), q, rtol=1e-12)


def test_a_fixed_point_is_where_the_staircase_ends():
    # below the unstable fixed point of GELU at gain 1.5 signals die, above it they explode
    gelu = from_function(torch.nn.functional.gelu)
    zero, unstable = mean_field.fixed_points(gelu, 1.5)
    assert zero.q == 0
    assert math.isclose(zero.slope, 1.5**2 / 4, rel_tol=1e-9)
    assert unstable.slope > 1
    assert mean_field.fixed_point(gelu, 1.5, start=0.9 * unstable.q) == 0
    assert mean_field.fixed_point(gelu, 1.5, start=1.1 * unstable.q) == math.inf


@pytest.mark.parametrize("activation", [tanh, hard_tanh, sigmoid, softsign], ids=lambda a: a.name)
def test_length_slope_is_the_derivative_of_the_map(activation):
    for q in (0.01, 1.0, 30.0):
        high, low = (mean_field.length_map(activation, q + s * 1e-5 * q, 1.3) for s in (1, -1))
        slope = mean_field.length_slope(activation, q, 1.3)
        assert math.isclose((high - low) / (2e-5 * q), slope, rel_tol=1e-6)


def test_a_staircase_that_starts_at_a_fixed_point_stays():
    stable = mean_field.fixed_point(tanh, 1.5)
    assert mean_field.fixed_point(tanh, 1.5, start=stable) == stable
    unstable = mean_field.fixed_points(from_function(torch.nn.functional.gelu), 1.5)[1].q
    assert mean_field.fixed_point(from_function(torch.nn.functional.gelu), 1.5, start=unstable) == unstable


def test_length_slope_at_0_and_of_homogeneous_activations():
    assert math.isclose(mean_field.length_slope(tanh, 0.0, 1.3), 1.3**2, rel_tol=1e-9)
    assert math.isclose(mean_field.length_slope(relu, 5.0, 1.3), 1.3**2 / 2, rel_tol=1e-12)
    assert [p.q for p in mean_field.fixed_points(sigmoid, 1.0)] == [mean_field.fixed_point(sigmoid, 1.0)]
    stable = {p.q: abs(p.slope) < 1 for p in mean_field.fixed_points(tanh, 1.5)}
    assert stable == {0.0: False, mean_field.fixed_point(tanh, 1.5): True}


def check_phase(activation, gain, bias_std):
    """Check c* and both scales by iterating the maps themselves."""
    q = mean_field.fixed_point(activation, gain, bias_std)
    c_star = mean_field.correlation_fixed_point(activation, gain, bias_std)
    scales = mean_field.depth_scales(activation, gain, bias_std)
    assert math.isclose(
        mean_field.correlation_map(activation, c_star, q, gain, bias_std), c_star, abs_tol=1e-9
    )
    far, near = c_star - 1e-3, c_star - 1e-4
    steps = [
        (c_star - mean_field.correlation_map(activation, c, q, gain, bias_std)) / (c_star - c)
        for c in (far, near)
    ]
    slope = steps[1] + (steps[1] - steps[0]) / 9  # to second order in the distance
    assert math.isclose(scales.correlation, -1 / math.log(slope), rel_tol=1e-4)
    x = 1e-5
    growth = math.log(abs(mean_field.length_map(activation, q * (1 + x), gain, bias_std) - q) / (q * x))
    assert math.isclose(scales.length, -1 / growth, rel_tol=1e-3)
    return c_star


def test_order_and_chaos():
    assert check_phase(tanh, 0.9, 0.2) == 1
    assert 0.4 < check_phase(tanh, 1.3, 0.1) < 0.6
    assert check_phase(tanh, 1.5, 0.0) == 0
    assert 0 < check_phase(hard_tanh, 1.2, 0.1) < 1


@pytest.mark.parametrize("activation", [tanh, hard_tanh], ids=lambda a: a.name)
def test_just_beyond_criticality_inputs_just_fail_to_merge(activation):
    gain, bias_std = mean_field.critical_point(activation, 0.3)
    q = mean_field.fixed_point(activation, 1.0003 * gain, bias_std)
    c = mean_field.correlation_fixed_point(activation, 1.0003 * gain, bias_std)
    assert 1e-6 < 1 - c < 1e-2
    again = mean_field.correlation_map(activation, c, q, 1.0003 * gain, bias_std)
    assert math.isclose(1 - again, 1 - c, rel_tol=1e-6)


@pytest.mark.parametrize("activation", [tanh, hard_tanh], ids=lambda a: a.name)
@pytest.mark.parametrize(("gain", "bias_std"), [(4.0, 5.0), (10.0, 30.0), (100.0, 500.0)])
def test_in_chaos_strong_biases_leave_a_fixed_point_close_to_1(activation, gain, bias_std):
    q = mean_field.fixed_point(activation, gain, bias_std)
    assert mean_field.chi_1(activation, q, gain) > 1.3
    c = 0.5
    for _ in range(100):
        c = mean_field.correlation_map(activation, c, q, gain, bias_std)
    assert c < 0.9999
    assert math.isclose(mean_field.correlation_fixed_point(activation, gain, bias_std), c, abs_tol=1e-9)


@pytest.mark.parametrize("excess", [3e-13, 1e-12, 3e-12, 1e-10])
def test_the_fixed_point_of_tanh_just_beyond_criticality(excess):
    # q = gain**2 (q - 2 q**2 + ...): q* = gain - 1 to first order, known up to what rounds to no growth
    assert abs(mean_field.fixed_point(tanh, 1 + excess) - excess) < 1e-12


def test_scales_of_homogeneous_layers():
    assert mean_field.depth_scales(relu, 1.3, 0.1) == pytest.approx([1 / abs(math.log(1.3**2 / 2))] * 3)
    length, correlation, gradient = mean_field.depth_scales(relu, 1.6)
    assert (length, gradient) == pytest.approx([1 / math.log(1.6**2 / 2)] * 2)
    assert correlation == math.inf  # the arc-cosine map has slope 1 at c = 1 for every gain
    assert mean_field.depth_scales(tanh, 0.9).correlation == math.inf  # without a signal every angle stays


@pytest.mark.parametrize(
    ("activation", "gain", "bias_std"), [(tanh, 1.0, 0.0), (relu, math.sqrt(2), 0.0), (linear, 1.0, 0.0)]
)
def test_scales_are_infinite_at_criticality(activation, gain, bias_std):
    assert mean_field.depth_scales(activation, gain, bias_std) == (math.inf,) * 3


def check_critical_point(critical_point):
    q = np.array([1e-6, 0.01, 1.0, 20.0])
    for activation in (tanh, erf, hard_tanh):
        gain, bias_std = critical_point(activation, q)
        np.testing.assert_allclose(mean_field.chi_1(activation, q, gain), 1, rtol=1e-12)
        np.testing.assert_allclose(mean_field.length_map(activation, q, gain, bias_std), q, rtol=1e-9)
    gain, bias_std = critical_point(tanh, 0.01)
    assert mean_field.depth_scales(tanh, gain, bias_std)[1:] == (math.inf, math.inf)
    assert math.isclose(mean_field.fixed_point(tanh, gain, bias_std), 0.01, rel_tol=1e-9)


def test_critical_point():
    check_critical_point(mean_field.critical_point)
    assert mean_field.critical_point(relu, 3.0) == pytest.approx((math.sqrt(2), 0.0))
    assert mean_field.critical_point(tanh, 0.0) == pytest.approx((1.0, 0.0))
    # erf: E phi'**2 = 4 / (pi sqrt(1 + 4 q))
    gain = mean_field.critical_point(erf, 2.0).gain
    assert math.isclose(gain**2, math.pi / 4 * 3)


def test_planted_faults_in_the_critical_point_are_caught():
    def squared(activation, q):
        return np.square(mean_field.critical_point(activation, q))

    with pytest.raises(AssertionError):
        check_critical_point(squared)


def test_a_critical_point_that_needs_a_negative_variance():
    with pytest.raises(ValueError, match=r"sigmoid has no critical point with q = \[0.1\]"):
        mean_field.critical_point(sigmoid, [0.1, 60.0])


@pytest.mark.parametrize("bias_std", [-0.1, math.nan, math.inf])
def test_fixed_point_refuses_a_bias_std(bias_std):
    with pytest.raises(ValueError, match=f"bias_std.* and {bias_std}"):
        mean_field.fixed_point(tanh, 1.0, bias_std)


@pytest.mark.parametrize("start", [0.0, -1.0, math.nan, math.inf])
def test_fixed_point_refuses_a_start(start):
    with pytest.raises(ValueError, match=f"start < inf; got {start}"):
        mean_field.fixed_point(tanh, 1.0, start=start)


def check_product_law(law, depth):
    x, density, share = law(depth)
    assert (np.diff(x) > 0).all()
    assert abs(share[-1] - 1) < 3e-4
    assert x[-1] < finite_width.product_spectrum_edge(depth) < 1.001 * x[-1]
    middle = slice(200, -50)  # away from the ends, where the density is steep
    slope = (np.diff(share) / np.diff(x))[middle]
    np.testing.assert_allclose(slope, ((density[1:] + density[:-1]) / 2)[middle], rtol=0.02)
    mass = np.diff(share, prepend=0.0, append=1.0)
    middles = np.concatenate([[0.0], (x[1:] + x[:-1]) / 2, [finite_width.product_spectrum_edge(depth)]])
    for k in (1, 2, 3):
        assert math.isclose(mass @ middles**k, finite_width.product_spectrum_moment(depth, k), rel_tol=2e-3)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_product_law_has_the_fuss_catalan_moments(depth):
    check_product_law(finite_width.product_spectrum, depth)
    with pytest.raises(AssertionError):
        check_product_law(lambda depth: finite_width.product_spectrum(depth + 1), depth)


def test_one_factor_is_marchenko_pasturs():
    x, density, share = finite_width.product_spectrum(1)
    np.testing.assert_allclose(density, np.sqrt((4 - x) / x) / (2 * math.pi), rtol=1e-7)
    t = np.arccos(np.sqrt(x) / 2)
    np.testing.assert_allclose(share, 1 - (2 * t - np.sin(2 * t)) / math.pi, atol=1e-6)
    assert finite_width.product_spectrum_edge(1) == pytest.approx(4)
    assert finite_width.product_spectrum_moment(1, 3) == 5  # a Catalan number
    assert finite_width.product_spectrum_edge(100) == pytest.approx(math.e * 100.5, rel=1e-4)


def test_the_law_of_a_thousand_factors_is_uniform_in_the_root():
    # Newman (1986): s**(2 / L) tends to the uniform law on (0, 1); logarithms, as x itself underflows
    roots = {}
    for depth in (100, 1000):
        x, _, share = finite_width.product_spectrum(depth)
        assert abs(share[-1] - 1) < 1e-3
        positive = x > 1e-300
        roots[depth] = np.exp(np.log(x[positive]) / depth)
        assert abs(roots[depth] - share[positive]).max() < 3 * math.log(depth) / depth


def test_a_product_of_nothing_has_no_law():
    with pytest.raises(ValueError, match="expected depth >= 1; got 0"):
        finite_width.product_spectrum(0)


def test_jacobian_spread():
    assert finite_width.jacobian_spread(linear, np.ones(7), orthogonal=True) == pytest.approx(0, abs=1e-10)
    gaussian = finite_width.jacobian_spread(linear, np.ones(7), orthogonal=False)
    assert gaussian == pytest.approx(finite_width.product_spectrum_moment(7, 2) - 1)
    assert finite_width.jacobian_spread(relu, np.ones(3), orthogonal=True) == pytest.approx(3)
    assert finite_width.jacobian_spread(relu, 1.0, orthogonal=False) == pytest.approx(2)
    # tanh near 0: Var((1 - z**2)**2) = 8 q**2
    assert finite_width.jacobian_spread(tanh, 1e-3, orthogonal=True) == pytest.approx(8e-6, rel=0.02)


GAINS = [
    (linear, 1.0),
    (relu, math.sqrt(2)),
    (leaky_relu(0.25), math.sqrt(2 / (1 + 0.25**2))),
    (erf, 1 / math.sqrt(2 / math.pi * math.asin(2 / 3))),
    (selu, 1.0),
    (torch.sign, 1.0),
    (torch.exp, math.exp(-1)),
    (lambda z: (2.5 * z).exp(), math.exp(-6.25)),
    (lambda z: (z - 0.123).abs(), 1 / math.sqrt(1 + 0.123**2)),  # a kink, and a jump, that nobody declares
    (lambda z: (z > 0.3456).to(z.dtype), 1 / math.sqrt(norm.sf(0.3456))),
    (lambda z: 1e-3 * torch.clamp(z, max=0), 1e3 * math.sqrt(2)),
    (lambda z: torch.sin(50 * z), math.sqrt(2)),
]


def check_gains(gain):
    for function, expected in GAINS:
        assert gain(function) == pytest.approx(expected, rel=1e-7)


def test_gains_against_closed_forms():
    check_gains(mean_field.gain_behind)


@pytest.mark.parametrize(
    "fault",
    [
        lambda f: mean_field.gain_behind(f) ** 2,
        lambda f: 1 / math.sqrt(mean_field.gaussian_expectation(lambda z: f(z) ** 2)),  # needs the kinks
        lambda f: (
            1 / math.sqrt(max(1e-9, np.var(f(torch.linspace(-5, 5, 999, dtype=torch.float64)).numpy())))
        ),
    ],
)
def test_a_wrong_gain_is_caught(fault):
    with pytest.raises(AssertionError):
        check_gains(fault)


def test_gains_agree_with_adaptive_quadrature_of_scipy():
    for activation in (gelu, silu, tanh, sigmoid, softsign, hard_tanh):
        f = lambda z, a=activation: a(torch.tensor(z, dtype=torch.float64)).item() ** 2 * norm.pdf(z)  # noqa: E731
        moment, _ = quad(f, -12, 12, points=[-1, 0, 1], epsabs=1e-12, epsrel=1e-12)
        assert mean_field.gain_behind(activation) == pytest.approx(moment**-0.5, rel=1e-9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.zeros_like, "zeros_like is 0 on the whole line"),
        (lambda z: torch.exp(z**2 / 3), "grows too fast"),
        (lambda z: torch.sin(1e6 * z), "oscillates too fast"),
        (lambda z: torch.softmax(z, -1), "each element its own value"),
        (lambda z: z.sum(), "must keep shape"),
        (torch.sqrt, "sqrt must be finite"),
        (lambda z: torch.where(z > 5, math.nan, z), "must be finite on the whole line"),
    ],
)
def test_functions_without_a_gain(function, message):
    with pytest.raises(ValueError, match=message):
        mean_field.gain_behind(function)


def test_the_gain_of_a_module():
    assert mean_field.gain_behind(torch.nn.LeakyReLU(0.25)) == pytest.approx(math.sqrt(2 / (1 + 0.25**2)))
