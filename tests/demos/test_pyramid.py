"""Pyramids: lines and numbers by hand, and both chains against matrices."""

import itertools
import math

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, named, z_score

from course_utils import network_laws, propagation
from course_utils.comparison import Row, format_estimate, mean_of
from course_utils.demos.pyramid import pyramid_figure, widths_of

SETTINGS = {"shape": "alternating", "mode": "fan_avg", "ratio": 3.0, "depth": 4}
MODES, SHAPES = ("fan_in", "fan_avg", "fan_out"), ("narrowing", "widening", "alternating")
CONTROLS = {"shape": SHAPES, "mode": MODES, "ratio": (1, 16, 9), "depth": (2, 30, 15)}
LABELS = ["shape of the network", "He's variance: 2 over", "widest / narrowest (r)", "depth (L)"]
FAN = {"fan_in": lambda a, b: a, "fan_out": lambda a, b: b, "fan_avg": lambda a, b: (a + b) / 2}


def pyramid_chains(widths, mode, count):
    variances = [2 / FAN[mode](a, b) for a, b in itertools.pairwise(widths)]
    draws = {"count": count, "generator": torch.Generator().manual_seed(0)}
    signal = propagation.leaky_chain(0.0, widths, variances, **draws)
    return signal, propagation.relu_gradient_chain(widths, variances, **draws)


def check(figure, sentence):
    (ax,), layers = figure.axes, np.arange(5)
    signal_line, signal_theory, gradient_line, gradient_theory = ax.lines
    signal, gradient = pyramid_chains([128, 384, 128, 384, 128], "fan_avg", 300)
    assert signal_line is named(ax, "signal (m), on its way up")
    assert gradient_line is named(ax, "gradient (g), on its way down")
    check_samples(ax, signal_line, layers, signal, np.mean)
    check_samples(ax, gradient_line, layers, gradient, np.mean)
    # 2 / fan_avg = 1 / 128: a layer multiplies by n / 256, upwards with its fan-in, downwards its fan-out.
    check_line(signal_theory, [1, 0.5, 0.75, 0.375, 0.5625], layers)
    check_line(gradient_theory, [0.5625, 0.375, 0.75, 0.5, 1], layers)
    heading = "fan_avg: signal × 0.562 at the top, gradient × 0.562 at the bottom"
    check_words(ax, "layer (l)", "second moment (m, g)", heading)
    assert "widths 128, 384, …, 128" in [text.get_text() for text in ax.texts]
    ends = (format_estimate(Row("", 0.5625, mean_of(x))) for x in (signal[:, -1], gradient[:, 0]))
    check_numbers(sentence, 4, 300, *itertools.chain(*ends))


def test_the_chains_have_the_law_of_real_matrices():
    widths, networks, generator = [12, 30, 16, 20], 4000, torch.Generator().manual_seed(1)
    h = torch.randn(networks, 12, 1, generator=generator, dtype=torch.float64)
    signal, weights, masks = [h.square().mean(dim=(1, 2))], [], []
    for n_in, n_out in itertools.pairwise(widths):
        draws = torch.randn(networks, n_out, n_in, generator=generator, dtype=torch.float64)
        weights.append(draws * math.sqrt(2 / n_out))
        h = torch.relu(weights[-1] @ h)
        masks.append(h > 0)
        signal.append(h.square().mean(dim=(1, 2)))
    error = torch.randn(networks, 20, 1, generator=generator, dtype=torch.float64)
    gradient = [error.square().mean(dim=(1, 2))]
    for weight, mask in zip(weights[::-1], masks[::-1], strict=True):
        error = weight.mT @ (mask * error)
        gradient.insert(0, error.square().mean(dim=(1, 2)))
    for chain, real in zip(pyramid_chains(widths, "fan_out", 2000), (signal, gradient), strict=True):
        for layer, power in itertools.product(range(4), (0.5, 1)):  # mean and, through the root, spread
            z = z_score(chain[:, layer] ** power, real[layer].numpy() ** power)
            assert abs(z) < 4, (layer, power)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "ends"), [*zip(SHAPES, [(1024, 128), (128, 1024), (128, 128)], strict=True)]
)
def test_fan_in_and_fan_out_move_one_end_only_by_the_ratio_of_the_outer_widths(shape, ends, mode):
    widths = widths_of(shape, 8.0, 12)
    assert (widths[0], widths[-1], widths.max(), widths.min()) == (*ends, 1024, 128)
    upwards, downwards = network_laws.relu_moments(widths, network_laws.he_variances(widths, mode))
    ratio = ends[0] / ends[1]
    if mode == "fan_avg":
        assert (upwards[-1] < 0.01 and downwards[0] < 0.01) == (shape == "alternating")
    else:
        expected = (1, 1 / ratio) if mode == "fan_in" else (ratio, 1)
        np.testing.assert_allclose((upwards[-1], downwards[0]), expected)


def test_the_narrowest_pyramid_has_a_silhouette():
    texts = [text.get_text() for text in pyramid_figure("narrowing", "fan_in", 16.0, 2)[0].axes[0].texts]
    assert "widths 2,048, 512, …, 128" in texts
