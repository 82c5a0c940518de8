"""Drawings of notebooks 01 to 04: lines and numbers against formulas written anew here."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_drawing, check_line, check_numbers, z_score
from matplotlib.figure import Figure
from scipy.special import digamma, polygamma

from course_utils import mean_field, propagation
from course_utils.activations import leaky_relu, linear, tanh
from course_utils.demos import forward as drawings_forward

NETWORKS = 50


def chain(activation, gain, depth, width, count=NETWORKS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return propagation.norm_chain(activation, gain, depth, width, count=count, generator=generator)


def check_explosion(figure, sentence):
    layers, factor = np.arange(41), math.sqrt(64) * 0.02
    markers, theory, largest, smallest = figure.axes[0].lines
    rms = propagation.norm_chain(
        linear, factor, 40, 64, count=NETWORKS, generator=torch.Generator().manual_seed(0)
    ).rms
    check_line(markers, np.median(np.log10(rms), axis=0)[::5], layers[::5])
    check_line(theory, layers * np.log10(factor), layers)
    check_line(largest, [np.log10(3.4028234664e38)] * 2)
    check_line(smallest, [np.log10(2.0**-149)] * 2)
    low, median, high = (f"10^{x:.1f}" for x in np.percentile(np.log10(rms[:, -1]), [2.5, 50, 97.5]))
    assert f"median {median}, 95 % between {low} and {high}." in sentence
    check_numbers(sentence, "0.16", "40", f"{40 * np.log10(0.16):.1f}")


def check_fan(figure, sentence):
    growth, noise = digamma(16) - math.log(16), polygamma(1, 16)  # of one factor chi2_n / n, n = 32
    factors = np.arange(1, 31)
    rms = propagation.norm_chain(
        linear, 1.0, 29, 32, count=1000, generator=torch.Generator().manual_seed(0)
    ).rms
    *single, middle, low, high = figure.axes[0].lines
    for line, network in zip(single, rms[:5], strict=True):
        check_line(line, network)
    for line, k in ((low, -1.96), (middle, 0), (high, 1.96)):
        check_line(line, np.exp((growth * factors + k * np.sqrt(noise * factors)) / 2))
    std = math.sqrt(30 * noise) / 2
    measured = np.log(rms[:, -1]).std(ddof=1)
    median = f"{math.exp(15 * growth):.2g}"
    check_numbers(sentence, "29", f"{std:.3f}", f"{measured:.3f}", f"{math.exp(std):.2f}", median)


def tanh_layer(q, gain):
    """Return the map of q and chi_1 by the trapezoidal rule."""
    z = np.linspace(-12, 12, 4001)
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    h = np.tanh(np.sqrt(np.reshape(q, (-1, 1))) * z)
    return gain**2 * h**2 @ density, gain**2 * (1 - h**2) ** 2 @ density


def check_tanh(figure, sentence):
    gain, depth, q = 1.4, 20, [1.4**2]
    for _ in range(400):
        q.append(tanh_layer(q[-1], gain)[0][0])
    diagonal, function, stairs = figure.axes[0].lines
    check_line(diagonal, diagonal.get_xdata())
    check_line(function, tanh_layer(function.get_xdata(), gain)[0])
    np.testing.assert_allclose(stairs.get_ydata()[1::2], q[1:31], rtol=1e-6)
    markers, theory = figure.axes[1].lines
    rms = np.median(chain(tanh, gain, depth, 256).rms, axis=0)
    predicted = np.append(1.0, np.sqrt(q[1 : depth + 1]) / gain)
    check_line(markers, rms[markers.get_xdata()], np.arange(len(rms))[:: markers.get_xdata()[1]])
    check_line(theory, predicted, np.arange(depth + 1))
    slope = math.sqrt(tanh_layer(q[-1], gain)[1][0])
    check_numbers(sentence, "20", *(f"{x:.4g}" for x in (predicted[-1], q[-1], slope)), f"{rms[-1]:.3g}")


def check_relu(figure, sentence):
    factor, layers = 1.2 * math.sqrt((1 + 0.3**2) / 2), np.arange(31)
    rms = drawings_forward._leaky_rms(0.3, 64, 30) * 1.2**layers
    markers, theory = figure.axes[0].lines
    check_line(markers, np.median(rms, axis=0)[markers.get_xdata()], layers[:: markers.get_xdata()[1]])
    check_line(theory, factor**layers, layers)
    low, median, high = np.percentile(rms[:, -1], [2.5, 50, 97.5])
    check_numbers(
        sentence, "30", f"{factor:.4f}", f"{factor**30:.3g}", f"{median:.3g}", f"{low:.2g}", f"{high:.2g}"
    )


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_leaky_networks_drawn_from_the_law_of_the_mean_square_are_like_real_ones(slope):
    fast = np.diff(2 * np.log(drawings_forward._leaky_rms(slope, 64, 150)), axis=1).ravel()
    chain = propagation.norm_chain(
        leaky_relu(slope), 1.0, 40, 64, count=200, generator=torch.Generator().manual_seed(5)
    )
    real = np.diff(np.log(chain.second_moment), axis=1).ravel()
    for power in (1, 2):  # of the growth in a layer, which is independent of all others
        assert abs(z_score(fast**power, real**power)) < 4


DRAWINGS = {
    check_explosion: lambda: drawings_forward.explosion_figure(weight_std=0.02, width=64, depth=40),
    check_fan: lambda: drawings_forward.fan_figure(width=32, depth=29),
    check_tanh: lambda: drawings_forward.tanh_figure(gain=1.4, depth=20),
    check_relu: lambda: drawings_forward.relu_figure(gain=1.2, negative_slope=0.3, width=64, depth=30),
}


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_lines_and_sentence_are_what_they_say(check):
    check_drawing(check, *DRAWINGS[check]())


def test_the_first_demo_predicts_the_overflow_layer():
    assert "leaves float32 in layer 29." in drawings_forward.explosion_figure(weight_std=1.0, width=512)[1]
    assert "leaves float32 in layer 70." in drawings_forward.explosion_figure(weight_std=0.01, width=512)[1]
    assert "it stays at 1" in drawings_forward.explosion_figure(weight_std=1 / 16, width=256)[1]
    assert "still within float32" in drawings_forward.explosion_figure(weight_std=0.05, width=512)[1]


def test_no_zero_has_a_minus_sign():
    sentence = drawings_forward.explosion_figure(weight_std=0.999 / 32, width=1024, depth=40)[1]
    assert "makes 10^0.0;" in sentence
    assert "10^-0.0" not in sentence


def test_sentences_carry_the_theory():
    figure, sentence = drawings_forward.tanh_figure(gain=1.5)
    assert isinstance(figure, Figure)
    assert f"q* = {mean_field.fixed_point(tanh, 1.5):.4g}" in sentence
    assert f"= {np.sqrt(1.25 / 2):.4f}. RMS" in drawings_forward.relu_figure(gain=1.0, negative_slope=0.5)[1]
    assert (
        f"predicted {np.sqrt(301 * polygamma(1, 8)) / 2:.3f}"
        in drawings_forward.fan_figure(width=16, depth=300)[1]
    )


@pytest.mark.parametrize(("weight_std", "width", "limit"), [(0.4, 64, 2.0**128), (0.05, 16, 2.0**-149)])
def test_the_overflow_layer_is_the_first_beyond_float32(weight_std, width, limit):
    factor = weight_std * math.sqrt(width)
    layer = next(i for i in range(1, 200) if (factor**i > limit) == (factor > 1))
    sentence = drawings_forward.explosion_figure(weight_std=weight_std, width=width, depth=100)[1]
    assert f"leaves float32 in layer {layer}." in sentence
