"""Tanh: the map, the staircase and the fixed point against the trapezoidal rule."""

import math
from functools import cache

import numpy as np
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words

from course_utils import mean_field, propagation
from course_utils.activations import tanh
from course_utils.demos.tanh import tanh_figure

SETTINGS = {"gain": 1.4, "depth": 20}
CONTROLS = {"gain": (0.5, 3.0, 51), "depth": (10, 150, 15)}
LABELS = ["gain (√n × weight std)", "depth (L)"]


def tanh_layer(q, gain):
    """Return the map of q and chi_1."""
    z = np.linspace(-12, 12, 1001)
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    h = np.tanh(np.sqrt(np.reshape(q, (-1, 1))) * z)
    return gain**2 * h**2 @ density, gain**2 * (1 - h**2) ** 2 @ density


@cache
def settled():
    q = [1.4**2]
    for _ in range(300):
        q.append(tanh_layer(q[-1], 1.4)[0][0])
    return np.array(q)


def check(figure, sentence):
    (left, right), q, layers = figure.axes, settled(), np.arange(21)
    diagonal, function, stairs = left.lines
    check_line(diagonal, function.get_xdata(), np.linspace(0, 3, 200))
    check_line(function, tanh_layer(function.get_xdata(), 1.4)[0])
    np.testing.assert_allclose(stairs.get_ydata(), np.append(0, np.repeat(q[1:31], 2)), rtol=1e-6)
    check_words(left, "q in this layer", "q' in the next", "The map at gain 1.40")
    draws = {"count": 50, "generator": torch.Generator().manual_seed(0)}
    rms = propagation.norm_chain(tanh, 1.4, 20, 256, **draws).rms
    predicted = np.append(1.0, np.sqrt(q[1:21]) / 1.4)
    markers, theory = right.lines
    check_samples(right, markers, layers, rms)
    check_line(theory, predicted, layers)
    check_words(right, "layer (l)", "RMS of the layer", "50 networks of width 256")
    slope = math.sqrt(tanh_layer(q[-1], 1.4)[1][0])
    low, median, high = np.percentile(rms[:, -1], [2.5, 50, 97.5])
    measured = f"{median:.3g}", 95, f"{low:.2g}", f"{high:.2g}"
    check_numbers(sentence, 20, f"{predicted[-1]:.4g}", 50, *measured, f"{q[-1]:.4g}", f"{slope:.4g}")


def test_the_sentence_carries_the_fixed_point():
    assert f"q* = {mean_field.fixed_point(tanh, 1.5):.4g}" in tanh_figure(gain=1.5)[1]
