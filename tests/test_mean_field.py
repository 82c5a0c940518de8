"""Theory against closed forms: no simulation here."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from course_utils import mean_field
from course_utils.activations import (
    Activation,
    erf,
    from_function,
    gelu,
    hard_tanh,
    leaky_relu,
    linear,
    relu,
    sigmoid,
    softsign,
    tanh,
)


@pytest.mark.parametrize(
    ("activation", "share"), [(linear, 1.0), (relu, 0.5), (leaky_relu(0.25), (1 + 0.25**2) / 2)]
)
def test_length_map_of_homogeneous_activations(activation, share):
    q = np.array([1e-12, 1.0, 1e12])
    np.testing.assert_allclose(mean_field.length_map(activation, q, gain=3.0), 9 * share * q, rtol=1e-12)


def test_length_map_takes_standard_deviations():
    assert mean_field.length_map(linear, 5.0, 3.0, 2.0) == pytest.approx(9 * 5 + 4)
    assert mean_field.length_map(linear, 5.0) == pytest.approx(5)


def test_the_second_moment_of_hard_tanh_knows_its_kinks():
    k = 1 / np.array([0.03, 1.0, 300.0])  # truncated moments of the normal law
    exact = (2 * norm.cdf(k) - 1 - 2 * k * norm.pdf(k)) / k**2 + 2 * norm.sf(k)
    np.testing.assert_allclose(mean_field.output_second_moment(hard_tanh, 1 / k**2), exact, rtol=1e-10)


def test_tanh_map_has_the_series_of_the_derivation():
    q = 1e-3
    series = q - 2 * q**2 + 17 / 3 * q**3
    assert abs(mean_field.length_map(tanh, q) - series) < 25 * q**4


def test_tanh_decays_as_a_power_law():
    m = mean_field.second_moments(tanh, 1.0, 10_000)
    offset = [1 / m[depth] - 2 * depth + 5 / 6 * math.log(depth) for depth in (1_000, 10_000)]
    assert abs(offset[0] - offset[1]) < 2e-3


def test_second_moments_by_layer_start_at_1():
    np.testing.assert_allclose(mean_field.second_moments(linear, 2.0, 2, bias_std=3.0), [1, 13, 61])
    np.testing.assert_allclose(mean_field.second_moments(relu, 2.0, 5), 2.0 ** np.arange(6))
    assert mean_field.second_moments(tanh, 1.3, 0).tolist() == [1.0]


def test_cosines_by_layer():
    c = [0.1]
    for _ in range(4):
        c.append(float(mean_field.relu_cosine_map(c[-1])))
    np.testing.assert_allclose(mean_field.cosines(relu, 0.1, 3.0, 4), c, rtol=1e-12)
    # linear with biases: cosine and second moment of the pre-activations, layer by layer
    q, k = 1.0, 0.5
    for cosine in mean_field.cosines(linear, 0.5, 2.0, 2, bias_std=3.0)[1:]:
        q, k = 4 * q + 9, 4 * k + 9
        assert math.isclose(k / q, cosine)


def test_sign_changes_skip_what_is_0():
    values = np.array([-2, -1, 1e-13, 0, 3, 1, -1e-13, 2, -4.0])
    before, after = mean_field.sign_changes(values)
    assert (before.tolist(), after.tolist()) == ([1, 7], [4, 8])
    assert [side.size for side in mean_field.sign_changes(np.zeros(3))] == [0, 0]
    assert [side.size for side in mean_field.sign_changes(np.array([1e-12, -1e-12]))] == [1, 1]


def test_fixed_points_of_the_length_map():
    assert mean_field.fixed_point(tanh, 0.9) == 0
    assert mean_field.fixed_point(tanh, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.0) == 0
    assert mean_field.fixed_point(relu, 1.5) == np.inf
    for activation, gain in [(tanh, 1.01), (tanh, 10.0), (sigmoid, 1.0), (softsign, 3.0)]:
        q = mean_field.fixed_point(activation, gain)
        assert math.isclose(mean_field.length_map(activation, q, gain), q, rel_tol=1e-9)


@pytest.mark.parametrize(("activation", "gain"), [(relu, math.sqrt(2)), (linear, 1.0)])
def test_on_a_line_of_fixed_points_q_stays_where_it_starts(activation, gain):
    assert mean_field.fixed_point(activation, gain) == 1
    with pytest.raises(ValueError, match=f"every q is a fixed point of {activation.name} at gain"):
        mean_field.fixed_points(activation, gain)


def test_fixed_points_with_biases_on_a_grid():
    gain, bias = np.meshgrid([0.5, 1.0, 1.3], [0.1, 0.5])
    # q = (gain**2 / 2) q + bias**2
    np.testing.assert_allclose(mean_field.fixed_point(relu, gain, bias), bias**2 / (1 - gain**2 / 2))
    assert (mean_field.fixed_point(relu, math.sqrt(2), bias) == math.inf).all()
    for activation in (tanh, erf, sigmoid, hard_tanh):
        q = mean_field.fixed_point(activation, gain, bias)
        assert q.shape == gain.shape
        np.testing.assert_allclose(mean_field.length_map(activation, q, gain, bias), q, rtol=1e-12)


def test_fixed_points_of_both_directions_at_once():
    # one dies, one settles below 1, one settles above, one explodes
    q = mean_field.fixed_point(leaky_relu(0.5), [0.5, 1.0, 1.2, 1.3], [0.0, 0.5, 0.7, 0.1])
    assert q == pytest.approx([0, 0.25 / (1 - 0.625), 0.49 / (1 - 0.625 * 1.44), math.inf])


def test_a_fixed_point_is_where_the_staircase_from_1_ends():
    # Below the unstable fixed point of GELU signals die, above it they explode.
    for gain, end in [(1.5, 0), (1.57, math.inf)]:
        zero, unstable = mean_field.fixed_points(gelu, gain)
        assert (unstable.q > 1) == (end == 0)
        assert (zero.q, zero.slope) == (0, pytest.approx(gain**2 / 4, rel=1e-9))
        assert unstable.slope > 1
        assert mean_field.fixed_point(gelu, gain) == end


@pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
def test_a_fixed_point_is_the_first_of_several(way):
    def ripples(z):  # E phi**2 / q waves in ln q: many stable points above and below 1
        return z.abs() * (1 + 0.3 * way * torch.sin(2 * torch.log(z.square() + 1e-30)))

    points = mean_field.fixed_points(from_function(ripples), 0.97)
    stable = [p.q for p in points if p.q > 0 and p.slope < 1 and (math.log(p.q) > 0) == (way > 0)]
    assert len(stable) > 3
    q = mean_field.fixed_point(from_function(ripples), 0.97)
    assert q == pytest.approx(min(stable) if way > 0 else max(stable), rel=1e-12)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf, 1e8])
def test_fixed_point_refuses_a_gain_without_a_signal(gain):
    for call in (mean_field.fixed_point, mean_field.fixed_points):
        with pytest.raises(ValueError, match=f"0 < gain < 1e8.* got gain={gain}, "):
            call(tanh, gain)


@pytest.mark.parametrize("bias_std", [-0.1, math.nan, math.inf, 1e8])
def test_fixed_point_refuses_a_bias_std(bias_std):
    with pytest.raises(ValueError, match=f"bias_std={bias_std}$"):
        mean_field.fixed_point(tanh, 1.0, bias_std)


@pytest.mark.parametrize("excess", [3e-13, 1e-12, 3e-12, 1e-10])
def test_the_fixed_point_of_tanh_just_beyond_criticality(excess):
    # q = gain**2 (q - 2 q**2 + ...): q* = gain - 1 to first order, known up to what rounds to no growth
    assert abs(mean_field.fixed_point(tanh, 1 + excess) - excess) < 1e-12


@pytest.mark.parametrize("activation", [tanh, hard_tanh, sigmoid, softsign], ids=lambda a: a.name)
def test_length_slope_is_the_derivative_of_the_map(activation):
    for q in (0.01, 1.0, 30.0):
        high, low = (mean_field.length_map(activation, q + s * 1e-5 * q, 1.3) for s in (1, -1))
        slope = mean_field.length_slope(activation, q, 1.3)
        assert math.isclose((high - low) / (2e-5 * q), slope, rel_tol=1e-6)


def test_length_slope_at_0_and_of_homogeneous_activations():
    assert math.isclose(mean_field.length_slope(tanh, 0.0, 1.3), 1.3**2, rel_tol=1e-9)
    assert math.isclose(mean_field.length_slope(relu, 5.0, 1.3), 1.3**2 / 2, rel_tol=1e-12)
    assert math.isclose(mean_field.length_slope(relu, 5.0), 1 / 2, rel_tol=1e-12)
    assert [p.q for p in mean_field.fixed_points(sigmoid, 1.0)] == [mean_field.fixed_point(sigmoid, 1.0)]
    stable = {p.q: abs(p.slope) < 1 for p in mean_field.fixed_points(tanh, 1.5)}
    assert stable == {0.0: False, mean_field.fixed_point(tanh, 1.5): True}


def test_chi_1():
    assert math.isclose(mean_field.chi_1(relu, 5.0, math.sqrt(2)), 1.0)
    assert math.isclose(mean_field.chi_1(relu, 5.0), 0.5)
    assert math.isclose(mean_field.chi_1(tanh, 0.0, 1.3), 1.3**2)
    assert math.isclose(mean_field.chi_1(hard_tanh, 4.0, 3.0), 9 * (2 * norm.cdf(0.5) - 1), rel_tol=1e-12)
    np.testing.assert_allclose(mean_field.chi_1(relu, math.inf, [1.0, 2.0]), [0.5, 2.0])
    # large gain: E sech(s Z)**4 ~ (4/3) / sqrt(2 pi) / s
    q = mean_field.fixed_point(tanh, 200.0)
    expected = 200.0**2 * 4 / 3 / math.sqrt(2 * math.pi * q)
    assert math.isclose(mean_field.chi_1(tanh, q, 200.0), expected, rel_tol=1e-3)


def test_sigmoid_is_critical_at_gain_10():
    q = mean_field.fixed_point(sigmoid, 10.149)
    assert abs(mean_field.chi_1(sigmoid, q, 10.149) - 1) < 1e-3


NONSENSE = [-1.0, math.nan, math.inf]


@pytest.mark.parametrize("q", NONSENSE)
@pytest.mark.parametrize(
    "call",
    [mean_field.output_second_moment, mean_field.length_map, mean_field.length_slope, mean_field.chi_1],
    ids=lambda f: f.__name__,
)
def test_what_is_no_second_moment(call, q):
    if not (call is mean_field.chi_1 and q == math.inf):
        with pytest.raises(ValueError, match=f"q must be a number, 0 <= q < inf; got q={q}"):
            call(tanh, q)


@pytest.mark.parametrize("std", NONSENSE)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("gain", lambda std: mean_field.length_map(tanh, 1.0, std)),
        ("gain", lambda std: mean_field.length_slope(tanh, 1.0, std)),
        ("gain", lambda std: mean_field.chi_1(tanh, 1.0, std)),
        ("gain", lambda std: mean_field.correlation_map(tanh, 0.5, 1.0, std)),
        ("gain", lambda std: mean_field.second_moments(tanh, std, 3)),
        ("gain", lambda std: mean_field.cosines(tanh, 0.5, std, 3)),
        ("bias_std", lambda std: mean_field.length_map(tanh, 1.0, 1.0, std)),
        ("bias_std", lambda std: mean_field.correlation_map(tanh, 0.5, 1.0, 1.0, std)),
        ("bias_std", lambda std: mean_field.second_moments(tanh, 1.0, 3, bias_std=std)),
        ("bias_std", lambda std: mean_field.cosines(tanh, 0.5, 1.0, 3, bias_std=std)),
    ],
)
def test_what_is_no_standard_deviation(name, call, std):
    with pytest.raises(ValueError, match=f"{name} must be a number, 0 <= {name} < inf; got {name}={std}"):
        call(std)


@pytest.mark.parametrize("depth", [-1, 2.0])
def test_what_is_no_depth(depth):
    for call in (
        lambda: mean_field.second_moments(tanh, 1.0, depth),
        lambda: mean_field.cosines(tanh, 0.5, 1.0, depth),
    ):
        with pytest.raises(ValueError, match=f"depth must be an integer.* got depth={depth}"):
            call()


def test_crossing_layer():
    assert math.isclose(mean_field.crossing_layer(2.0**30, 2.0), 30)
    assert math.isclose(mean_field.crossing_layer(0.5**30, 0.5), 30)
    assert math.ceil(mean_field.crossing_layer(torch.finfo(torch.float32).max, math.sqrt(512))) == 29


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
        (-2.0, 0.5),
        (2.0, math.nan),
    ],
)
def test_a_limit_that_is_never_crossed_is_refused(limit, factor):
    with pytest.raises(ValueError, match=f"{factor} per layer never crosses {limit}"):
        mean_field.crossing_layer(limit, factor)


@pytest.mark.parametrize("cosine", [1.001, -1.001, math.nan, [0.5, 2.0]])
def test_what_is_no_cosine_is_refused(cosine):
    with pytest.raises(ValueError, match="a correlation lies between -1 and 1; got "):
        mean_field.relu_cosine_map(cosine)


def test_relu_cosine_map_ends():
    assert mean_field.relu_cosine_map(1.0) == 1
    assert mean_field.relu_cosine_map(-1.0) == pytest.approx(0, abs=1e-15)
    assert mean_field.relu_cosine_map(0.0) == pytest.approx(1 / math.pi)
    assert mean_field.relu_cosine_map(0.5) == pytest.approx(1 / 3 + math.sqrt(3) / (2 * math.pi))


def test_relu_cosine_map_forgives_a_cosine_rounded_above_1():
    assert mean_field.relu_cosine_map(np.nextafter(1.0, 2.0)) == 1
    assert mean_field.relu_cosine_map(np.nextafter(-1.0, -2.0)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("c", [1.1, -1.1, math.nan])
@pytest.mark.parametrize(
    "call",
    [
        lambda c: mean_field.correlation_map(tanh, c, 1.0),
        lambda c: mean_field.cosines(tanh, c, 1.0, 1),
    ],
    ids=["map", "layers"],
)
def test_what_is_no_correlation(call, c):
    with pytest.raises(ValueError, match=f"a correlation lies between -1 and 1; got {c}"):
        call(c)


def test_a_correlation_needs_a_signal():
    assert mean_field.correlation_map(tanh, 0.3, 1.0, 0.0, 0.5) == 1  # biases alone are shared
    with pytest.raises(ValueError, match=r"no signal, no correlation: q=1\.0, gain=0\.0, bias_std=0\.0"):
        mean_field.correlation_map(tanh, 0.3, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"a correlation needs 0 < q < inf; got 0\.0"):
        mean_field.correlation_map(tanh, 0.3, 0.0, 1.0, 0.5)


COSINES = np.array([-1, -0.5, 0, 0.3, 0.999, 1])


def check_pair_maps(correlation_map):
    """Compare with Cho & Saul's arc-cosine kernels, Williams's arcsine kernel and a linear network."""
    gain, bias, q = 1.3, 0.4, 2.3

    def kernel(c):
        return gain**2 * 2 / math.pi * np.arcsin(2 * q * c / (1 + 2 * q)) + bias**2

    relu_map = mean_field.relu_cosine_map(COSINES)
    np.testing.assert_allclose(correlation_map(relu, COSINES, q), relu_map, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        correlation_map(erf, COSINES, q, gain, bias), kernel(COSINES) / kernel(1.0), rtol=1e-10
    )
    np.testing.assert_allclose(
        correlation_map(linear, COSINES, q, gain, bias),
        (gain**2 * q * COSINES + bias**2) / (gain**2 * q + bias**2),
    )


def test_pair_maps_against_closed_forms():
    check_pair_maps(mean_field.correlation_map)


def test_planted_faults_in_the_pair_maps_are_caught():
    def cosine_of_the_conditional_std(activation, c, q, gain=1.0, bias_std=0.0):
        return mean_field.correlation_map(activation, 0.999 * np.asarray(c), q, gain, bias_std)

    def bias_as_a_variance(activation, c, q, gain=1.0, bias_std=0.0):
        return mean_field.correlation_map(activation, c, q, gain, math.sqrt(bias_std))

    for fault in (cosine_of_the_conditional_std, bias_as_a_variance):
        with pytest.raises(AssertionError):
            check_pair_maps(fault)


def check_phase(activation, gain, bias_std):
    """Check c* and both scales by iterating the maps themselves."""
    q = mean_field.fixed_point(activation, gain, bias_std)
    c_star = mean_field.correlation_fixed_point(activation, gain, bias_std)
    scales = mean_field.depth_scales(activation, gain, bias_std)
    far, near, there = mean_field.correlation_map(
        activation, c_star - np.array([1e-3, 1e-4, 0]), q, gain, bias_std
    )
    assert math.isclose(there, c_star, abs_tol=1e-9)
    steps = (c_star - far) / 1e-3, (c_star - near) / 1e-4
    slope = steps[1] + (steps[1] - steps[0]) / 9  # to second order in the distance
    assert math.isclose(scales.correlation, -1 / math.log(slope), rel_tol=1e-4)
    x = 1e-5
    growth = math.log(abs(mean_field.length_map(activation, q * (1 + x), gain, bias_std) - q) / (q * x))
    assert math.isclose(scales.length, -1 / growth, rel_tol=1e-3)
    chi = mean_field.chi_1(activation, q, gain)
    assert math.isclose(scales.gradient, 1 / abs(math.log(chi)), rel_tol=1e-12)
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
    c = mean_field.correlation_fixed_point(activation, gain, bias_std)
    assert 0.5 < c < 0.9999
    around = c + np.array([-1e-8, 1e-8])
    drift = mean_field.correlation_map(activation, around, q, gain, bias_std) - around
    assert drift[0] > 0 > drift[1]  # stable, and there


def test_depth_scales_stay_finite_close_to_the_edge():
    far, near = (mean_field.depth_scales(tanh, gain) for gain in (1.01, 1.003))
    assert near.correlation / far.correlation == pytest.approx((10 / 3) ** 2, rel=0.03)  # as 1 / (gain - 1)²
    assert near.gradient / far.gradient == pytest.approx((10 / 3) ** 2, rel=0.03)


def test_scales_of_homogeneous_layers():
    assert mean_field.depth_scales(relu, 1.3, 0.1) == pytest.approx([1 / abs(math.log(1.3**2 / 2))] * 3)
    length, correlation, gradient = mean_field.depth_scales(relu, 1.6)
    assert (length, gradient) == pytest.approx([1 / math.log(1.6**2 / 2)] * 2)
    assert correlation == math.inf  # the arc-cosine map has slope 1 at c = 1 for every gain
    assert mean_field.depth_scales(tanh, 0.9).correlation == math.inf  # without a signal every angle stays


def test_what_forgets_at_once_has_scale_0():
    constant = Activation("constant", torch.ones_like, torch.zeros_like)
    assert mean_field.depth_scales(constant, 0.5) == (0.0, 0.0, 0.0)


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
