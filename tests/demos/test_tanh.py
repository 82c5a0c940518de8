"""Tanh: map, staircase and the laws of signal and gradient against the trapezoidal rule."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, named

from course_utils import propagation
from course_utils.activations import tanh
from course_utils.comparison import Row, format_estimate, root_mean_of
from course_utils.demos.tanh import tanh_figure

SETTINGS = {"gain": 1.4, "depth": 20}
CONTROLS = {"gain": (0.5, 3.0, 51), "depth": (10, 100, 10)}
LABELS = ["gain (√n × weight std)", "depth (L)"]


def tanh_layer(q, gain):
    """Return the map of q and chi_1."""
    z = np.linspace(-12, 12, 1001)
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    h = np.tanh(np.sqrt(np.reshape(q, (-1, 1))) * z)
    return gain**2 * h**2 @ density, gain**2 * (1 - h**2) ** 2 @ density


@cache
def laws(gain, depth):
    """Return q, and the RMS of signal and gradient over the first and over the last layer's."""
    q = [gain**2]
    for _ in range(max(depth, 30)):
        q.append(tanh_layer(q[-1], gain)[0][0])
    q = np.array(q)
    chi = tanh_layer(q[:depth], gain)[1]
    gradient = [np.prod(chi[layer:]) for layer in range(depth + 1)]
    return q, np.sqrt(q[: depth + 1] / q[0]), np.sqrt(gradient)


def drawn_networks(gain, depth):
    """Return squares of signal and gradient over the first and over the last layer's."""
    draws = torch.randn(101, 2, 12, 256, generator=torch.Generator().manual_seed(0)).numpy()
    signal, gradient = propagation.gradient_chain(tanh, (gain, gain), draws[: depth + 1])
    return signal / signal[:, :1], gradient


def root_mean_square(rms, axis):
    return np.sqrt(np.mean(rms**2, axis=axis))


def check(figure, sentence):
    (left, right), (q, *theory), squares = figure.axes, laws(1.4, 20), drawn_networks(1.4, 20)
    diagonal, function, stairs = left.lines
    check_line(diagonal, function.get_xdata(), np.linspace(0, 2.5, 100))
    check_line(function, tanh_layer(function.get_xdata(), 1.4)[0])
    np.testing.assert_allclose(stairs.get_ydata(), np.append(0, np.repeat(q[1:16], 2)), rtol=1e-6)
    check_words(left, "q in this layer", "q' in the next", "The map at gain 1.40")
    lines, layers = right.lines, np.arange(21)
    assert (lines[0], lines[2]) == (named(right, "signal"), named(right, "gradient"))
    for markers, line, law, samples in zip(lines[::2], lines[1::2], theory, squares, strict=True):
        check_samples(right, markers, layers, np.sqrt(samples), root_mean_square)
        check_line(line, law, layers)
    check_words(right, "layer (l)", "RMS, relative", f"Predicted: gradient × {theory[1][0]:.3g}")
    assert [t.get_text() for t in right.texts if "within" in t.get_text()] == ["within a factor of 30"]
    ends = squares[0][:, -1], squares[1][:, 0]
    rows = (Row("", law, root_mean_of(x)) for law, x in zip((theory[0][-1], theory[1][0]), ends, strict=True))
    up, down = map(format_estimate, rows)
    within = np.sum((np.abs(np.log(ends)) <= math.log(900)).all(axis=0))
    check_numbers(sentence, 20, *up, *down, 12, 256, within, 30)


@pytest.mark.parametrize(("gain", "factor"), [(1.0, 0.084), (1.25, 5.8)])
def test_the_gradients_factor_is_the_product_over_the_layers_as_they_are(gain, factor):
    assert tanh_figure(gain=gain)[0].axes[1].lines[3].get_ydata()[0] == pytest.approx(factor, rel=0.01)


def test_networks_that_keep_both_are_counted_by_the_factor_that_is_shaded():
    ends = np.log([squares[:, k] for squares, k in zip(drawn_networks(1.3, 100), (-1, 0), strict=True)])
    kept, fewer = ((np.abs(ends) <= 2 * math.log(factor)).all(axis=0).sum() for factor in (30, math.sqrt(30)))
    assert 0 < fewer < kept <= 12
    assert f"{kept} of them keep both within a factor of 30" in tanh_figure(gain=1.3, depth=100)[1]
