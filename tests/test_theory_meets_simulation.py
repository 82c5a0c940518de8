"""Where theory and experiment meet. Limits are |z| <= 4 from standard errors; seeds are fixed.

Each law is checked through a function of its ingredients, so that a planted fault can be seen to fail.
"""

import math
from functools import cache, partial

import numpy as np
import pytest
import torch

from course_utils import mean_field, network_laws, propagation
from course_utils.activations import hard_tanh, leaky_relu, linear, relu, sigmoid, tanh
from course_utils.comparison import compare, mean_of, refute, root_mean_of, std_of
from course_utils.initializers import (
    kaiming_normal_,
    lecun_normal_,
    lecun_uniform_,
    normal_,
    orthogonal_,
    xavier_uniform_,
)
from course_utils.networks import PlainNetwork


def generator():
    return torch.Generator().manual_seed(20)


def check_chain_has_the_law_of_matrices(activation, chain_gain, matrix_gain):
    init_ = partial(lecun_normal_, gain=matrix_gain)
    real = propagation.simulate(activation, init_, [24] * 9, count=400, generator=generator())
    chain = propagation.norm_chain(activation, chain_gain, 8, 24, count=4000, generator=generator())
    for pick in (lambda p: np.log(p.second_moment[:, -1]), lambda p: p.mean[:, -1] / p.rms[:, -1]):
        for statistic in (mean_of, std_of):
            expected, estimate = statistic(pick(chain)), statistic(pick(real))
            difference = estimate.value - expected.value
            assert abs(difference) < 4 * math.hypot(estimate.standard_error, expected.standard_error)


@pytest.mark.parametrize("activation", [linear, tanh, relu, sigmoid], ids=lambda a: a.name)
def test_chain_and_matrices_have_one_law(activation):
    check_chain_has_the_law_of_matrices(activation, 1.2, 1.2)


def test_a_variance_where_a_std_is_meant_is_caught():
    with pytest.raises(AssertionError):
        check_chain_has_the_law_of_matrices(tanh, 1.2, 1.2**2)


def check_second_moment(activation, gain, predicted_factor, depth=10):
    m = propagation.norm_chain(activation, gain, depth, 256, count=4000, generator=generator()).second_moment
    compare(("E m", predicted_factor**depth, mean_of(m[:, -1])))


def test_second_moments_of_homogeneous_layers():
    check_second_moment(linear, 1.0, 1.0)
    check_second_moment(relu, math.sqrt(2), 1.0)
    check_second_moment(relu, 1.0, 0.5)
    check_second_moment(leaky_relu(0.25), 1.0, (1 + 0.25**2) / 2)


def test_planted_faults_in_the_relu_law_are_caught():
    with pytest.raises(AssertionError):  # the square root of 2 is missing
        check_second_moment(relu, 1.0, 1.0)
    with pytest.raises(AssertionError):  # a standard deviation off by 1 %
        check_second_moment(relu, 1.01 * math.sqrt(2), 1.0)
    with pytest.raises(AssertionError):  # the variance taken for the second moment
        check_second_moment(relu, math.sqrt(2), 2 * (1 / 2 - 1 / (2 * math.pi)), depth=1)


@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        (linear, 1.0),
        (relu, math.sqrt(2)),
        (relu, 1.0),
        (leaky_relu(0.5), 1.3),
        (tanh, 1.0),
        (tanh, 1.5),
        (tanh, 3**-0.5),
    ],
    ids=str,
)
def test_log_law_at_finite_width(activation, gain):
    mean, variance = network_laws.log_second_moment_law(activation, gain, 60, 512)
    profile = propagation.norm_chain(activation, gain, 60, 512, count=1000, generator=generator())
    log_m = np.log(profile.second_moment[:, -1])
    compare(
        ("mean", mean[-1], mean_of(log_m)),
        ("std", math.sqrt(variance[-1]), std_of(log_m)),
    )


@pytest.mark.parametrize(("activation", "gain"), [(linear, 1.0), (relu, math.sqrt(2))], ids=str)
@pytest.mark.parametrize("width", [16, 64])
def test_exact_growth_at_small_width(activation, gain, width):
    m = propagation.norm_chain(activation, gain, 6, width, count=4000, generator=generator()).second_moment
    m = m[m[:, -1] > 0]  # the law is given that some unit is on in each layer; if none is, the signal stays 0
    growth = np.log(m[:, -1] / m[:, 0])
    mean, variance = network_laws.exact_log_growth(activation, gain, width)
    compare(("mean", 6 * mean, mean_of(growth)), ("std", math.sqrt(6 * variance), std_of(growth)))


def test_the_first_order_law_is_not_exact_and_is_caught_at_small_width():
    m = propagation.norm_chain(linear, 1.0, 6, 8, count=200_000, generator=generator()).second_moment
    log_m = mean_of(np.log(m[:, -1]))
    mean, _ = network_laws.log_second_moment_law(linear, 1.0, 6, 8)
    growth, _ = network_laws.exact_log_growth(linear, 1.0, 8)  # the input's law is that of a layer's growth
    compare(("exact", 7 * growth, log_m))
    assert mean[-1] - 7 * growth > 10 * log_m.standard_error
    refute(("first order", mean[-1], log_m))


@pytest.mark.parametrize("init_", [lecun_normal_, lecun_uniform_, xavier_uniform_], ids=lambda f: f.__name__)
def test_square_layers_of_every_scheme_share_one_law(init_):
    mean, variance = network_laws.log_second_moment_law(tanh, 1.0, 20, 128)
    m = propagation.simulate(tanh, init_, [128] * 21, count=150, generator=generator()).second_moment[:, -1]
    compare(("mean", mean[-1], mean_of(np.log(m))), ("std", math.sqrt(variance[-1]), std_of(np.log(m))))


def gradient_growth(activation, gain, start, count=150, width=128, depth=5):
    g, growth = generator(), []
    for _ in range(count):
        network = PlainNetwork(
            [width] * (depth + 1), activation, partial(lecun_normal_, gain=gain), generator=g
        )
        x, u = torch.randn(2, 1, width, generator=g)
        profile = propagation.gradient_second_moments(network, start * x, u)
        growth.append(profile[0, 0] / profile[0, -1])
    return root_mean_of(growth)


@pytest.mark.parametrize(
    ("activation", "gain"), [(tanh, 1.2), (tanh, 3.0), (sigmoid, 1.0), (sigmoid, 10.149)], ids=str
)
def test_gradients_grow_by_chi_1(activation, gain):
    q = mean_field.fixed_point(activation, gain)
    # sigmoid's input of mean 1/2 is replaced by one of mean 0 with the same second moment: only that matters
    start = math.sqrt(mean_field.output_second_moment(activation, q))
    chi = mean_field.chi_1(activation, q, gain)
    compare(("gradient RMS over 5 layers", chi**2.5, gradient_growth(activation, gain, start)))


def test_he_gradients_neither_grow_nor_shrink():
    assert math.isclose(mean_field.chi_1(relu, 1.0, math.sqrt(2)), 1.0)
    compare(("gradient RMS", 1.0, gradient_growth(relu, math.sqrt(2), 1.0)))
    with pytest.raises(AssertionError):
        compare(("gradient RMS, no factor 2", 1.0, gradient_growth(relu, 1.0, 1.0)))


def test_relu_angles_follow_the_arc_cosine_map():
    g, cosines = generator(), []
    for _ in range(60):
        network = PlainNetwork([256] * 4, relu, kaiming_normal_, generator=g)
        *_, h = network.layers(torch.randn(2, 256, generator=g))
        cosines.append(torch.cosine_similarity(h[0], h[1], dim=0).item())
    predicted = 0.0
    for _ in range(3):
        predicted = mean_field.relu_cosine_map(predicted)
    compare(("cosine after 3 layers", predicted, mean_of(cosines)))


@cache
def narrow_networks():
    # As many and as wide as it takes: second order, about 1.4e-3, stays within one standard error, while half
    # of what the curvature contributes is seven of them.
    m = propagation.norm_chain(tanh, 1.0, 12, 64, count=64_000, generator=generator()).second_moment
    return mean_of(np.log(m[:, -1]))


def check_curvature(law):
    compare(("mean of ln m", law(tanh, 1.0, 12, 64)[0][-1], narrow_networks()))


def test_the_curvature_of_the_map_pulls_the_mean_of_narrow_networks():
    check_curvature(network_laws.log_second_moment_law)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
def test_a_law_with_a_wrong_share_of_the_curvature_is_caught(share):
    def wrong(activation, gain, depth, width):
        """Add to the right law what the curvature contributes, times share - 1, carried on by the slope."""
        mean, variance = network_laws.log_second_moment_law(activation, gain, depth, width)
        error = [0.0]
        for log_m, v in zip(mean[:-1], variance[:-1], strict=True):
            step = 0.01
            below, at, above = np.log(
                mean_field.length_map(activation, gain**2 * np.exp(log_m + step * np.array([-1, 0, 1])))
            )
            slope, curvature = (above - below) / (2 * step), (above - 2 * at + below) / step**2
            error.append(slope * error[-1] + (share - 1) * curvature * v / 2)
        return mean + error, variance

    with pytest.raises(AssertionError):
        check_curvature(wrong)


def pair_statistics(activation, gain, bias_std, depth, width=512, networks=40):
    """Return the mean square and the overlap of two inputs' outputs at the last layer, one row a network."""
    g, rows = generator(), []
    for _ in range(networks):
        network = PlainNetwork(
            [width] * (depth + 1),
            activation,
            partial(lecun_normal_, gain=gain),
            bias_init_=partial(normal_, std=bias_std),
            generator=g,
        )
        h = network(torch.randn(2, width, generator=g)).double()
        rows.append([h.square().mean().item(), (h[0] * h[1]).mean().item()])
    return np.array(rows).T


def check_pairs(activation, gain, bias_std, theory_bias, depth=4):
    m = mean_field.second_moments(activation, gain, depth, bias_std=theory_bias)[-1]
    c = mean_field.cosines(activation, 0.0, gain, depth, bias_std=theory_bias)[-1]
    squares, overlaps = pair_statistics(activation, gain, bias_std, depth)
    compare(("second moment", m, mean_of(squares)), ("overlap", m * c, mean_of(overlaps)))


@pytest.mark.parametrize(
    ("activation", "gain", "bias_std"),
    [(tanh, 1.5, 0.3), (tanh, 0.9, 0.2), (relu, 1.3, 0.4), (hard_tanh, 1.2, 0.2), (sigmoid, 3.0, 0.5)],
    ids=str,
)
def test_two_inputs_follow_the_maps(activation, gain, bias_std):
    check_pairs(activation, gain, bias_std, bias_std)


def test_a_bias_variance_where_a_std_is_meant_is_caught():
    with pytest.raises(AssertionError):
        check_pairs(tanh, 0.9, 0.5, 0.25)


def spread_of_singular_values(activation, gain, weight_init_, widths, generator):
    network = PlainNetwork(widths, activation, partial(weight_init_, gain=gain), generator=generator)
    # One input, repeated: the gradient of the k-th output in the k-th copy is a row of the Jacobian.
    x = torch.randn(widths[0], generator=generator).repeat(widths[-1], 1).requires_grad_()
    jacobian = torch.autograd.grad(network(x).diagonal().sum(), x)[0].double()
    moments = [torch.linalg.svdvals(jacobian).pow(k).mean() for k in (2, 4)]
    return (moments[1] / moments[0] ** 2 - 1).item()


@pytest.mark.parametrize("activation", [linear, tanh, relu], ids=lambda a: a.name)
@pytest.mark.parametrize("weight_init_", [orthogonal_, lecun_normal_])
def test_the_spread_of_singular_values_adds_up(activation, weight_init_):
    width, depth, gain = 256, 4, 1.3
    q = gain**2 * mean_field.second_moments(activation, gain, depth - 1)
    predicted = network_laws.jacobian_spread(activation, q, orthogonal=weight_init_ is orthogonal_)
    g = generator()
    measured = [
        spread_of_singular_values(activation, gain, weight_init_, [width] * (depth + 1), g) for _ in range(12)
    ]
    if predicted < 1e-10:
        assert max(measured) < 1e-10  # an isometry, but for float32
    else:
        compare(("relative variance of s**2", predicted, mean_of(measured)))
        with pytest.raises(AssertionError):
            compare(("one layer short", predicted * (depth - 1) / depth, mean_of(measured)))
