"""Leaky ReLU: lines and numbers, and the chain of mean squares against one of units."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, z_score

from course_utils import propagation
from course_utils.activations import leaky_relu

SETTINGS = {"gain": 1.2, "negative_slope": 0.3, "width": 64}
CONTROLS = {"gain": (0.5, 2.5, 201), "negative_slope": (0, 1, 21), "width": (16, 64, 256, 512, 1024)}
LABELS = ["gain (√n × weight std)", "negative slope (a)", "width (n)"]


def leaky(slope, depth, width, count, seed=0):
    draws = {"count": count, "generator": torch.Generator().manual_seed(seed)}
    return propagation.leaky_chain(slope, [width] * (depth + 1), [1 / width] * depth, **draws)


def check(figure, sentence):
    (ax,), layers = figure.axes, np.arange(101)
    factor, rms = 1.2 * math.sqrt((1 + 0.3**2) / 2), np.sqrt(leaky(0.3, 100, 64, 50)) * 1.2**layers
    markers, theory = ax.lines
    check_samples(ax, markers, layers, rms)
    check_line(theory, factor**layers, layers)
    heading = f"Predicted: each layer multiplies the RMS by {factor:.3f}"
    check_words(ax, "layer (l)", "RMS of the layer", heading)
    low, median, high = np.percentile(rms[:, -1], [2.5, 50, 97.5])
    measured = 50, f"{median:.3g}", 95, f"{low:.2g}", f"{high:.2g}"
    check_numbers(sentence, 1, 2, f"{factor:.4f}", 100, f"{factor**100:.3g}", *measured)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_the_chain_of_mean_squares_is_like_that_of_units(slope):
    fast = np.diff(np.log(leaky(slope, 100, 64, 100)), axis=1).ravel()
    draws = {"count": 200, "generator": torch.Generator().manual_seed(5)}
    real = propagation.norm_chain(leaky_relu(slope), 1.0, 30, 64, **draws).second_moment
    for power in (1, 2):  # of the growth in a layer, which is independent of all others
        assert abs(z_score(fast**power, np.diff(np.log(real), axis=1).ravel() ** power)) < 4
    wrong = np.diff(np.log(leaky(slope + 0.2, 100, 64, 100)), axis=1).ravel()
    assert abs(z_score(wrong, fast)) > 4
    start = leaky(slope, 0, 64, 4000)[:, 0]
    assert abs(z_score(start, [1.0, 1.0])) < 4  # an input of variance 1, not half of one
