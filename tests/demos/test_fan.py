"""The fan: lines and numbers against the log-normal law written anew."""

import math

import numpy as np
import torch
from drawing_checks import band_edges, check_line, check_numbers, check_words, named, two
from scipy.special import digamma, polygamma

from course_utils import propagation
from course_utils.activations import linear
from course_utils.comparison import std_of
from course_utils.demos.fan import fan_figure

SETTINGS = {"width": 32, "depth": 29, "seed": 3}
CONTROLS = {"width": (16, 64, 256, 512, 1024), "depth": (5, 300, 60), "seed": (0, 20, 21)}
LABELS = ["width (n)", "depth (L)", "seed"]


def check(figure, sentence):
    (ax,) = figure.axes
    growth, noise = digamma(16) - math.log(16), polygamma(1, 16)  # of one factor chi2_n / n, n = 32
    factors, draws = np.arange(1, 31), {"count": 1000, "generator": torch.Generator().manual_seed(3)}
    rms = propagation.norm_chain(linear, 1.0, 29, 32, **draws).rms
    *single, middle, low, high = ax.lines
    for line, network in zip(single, rms[:5], strict=True):
        check_line(line, network)
    for line, k in ((low, -1.96), (middle, 0), (high, 1.96)):
        check_line(line, np.exp((growth * factors + k * np.sqrt(noise * factors)) / 2))
    assert (middle, low) == (named(ax, "predicted median"), named(ax, "predicted 95 %"))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["predicted median", "predicted 95 %"]
    for band, ends in zip(ax.collections, ((2.5, 97.5), (10, 90), (25, 75)), strict=True):
        np.testing.assert_allclose(band_edges(band, np.arange(30)), np.percentile(rms, ends, axis=0))
    check_words(ax, "layer (l)", "RMS of the layer", "1,000 networks, depth / width = 0.91")
    std, spread = math.sqrt(30 * noise) / 2, std_of(np.log(rms[:, -1]))
    measured = (f"{x:.3f}" for x in spread)
    last = f"{math.exp(std):.2f}", f"{math.exp(15 * growth):.2g}"
    check_numbers(sentence, 29, f"{std:.3f}", 2, "1,000", *measured, *last)


def test_the_widest_fan_is_predicted():
    assert f"predicted {np.sqrt(301 * polygamma(1, 8)) / 2:.3f}" in fan_figure(width=16, depth=300)[1]
    assert two(std_of([1.0, 2.0, 4.0])) == f"{std_of([1.0, 2.0, 4.0])}".split(" ± ")
