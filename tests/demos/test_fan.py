"""The fan: lines and numbers against the log-normal law written anew."""

import math

import numpy as np
import torch
from drawing_checks import band_edges, check_line, check_numbers, check_words, named, two
from scipy.special import digamma, polygamma

from course_utils import propagation
from course_utils.comparison import std_of
from course_utils.demos.fan import fan_figure

SETTINGS = {"width": 32, "depth": 29, "seed": 3}
CONTROLS = {"width": (16, 64, 256, 512, 1024), "depth": (5, 300, 60), "seed": (0, 20, 21)}
LABELS = ["width (n)", "depth (L)", "seed"]


def check(figure, sentence):
    (ax,) = figure.axes
    growth, noise = digamma(16) - math.log(16), polygamma(1, 16)  # of one factor chi2_n / n, n = 32
    factors, draws = np.arange(30), {"count": 250, "generator": torch.Generator().manual_seed(3)}
    rms = np.exp(propagation.log_lengths("Gaussian", 32, 300, **draws))[:, :30]
    twice, half, *single, middle, low, high = ax.lines
    for line, network in zip(single, rms[:5], strict=True):
        check_line(line, network)
    for line, k in ((low, -1.96), (middle, 0), (high, 1.96)):
        check_line(line, np.exp((growth * factors + k * np.sqrt(noise * factors)) / 2))
    for line, factor in ((twice, 2), (half, 0.5)):
        check_line(line, factor * np.exp(growth * factors / 2))
    names = ["a factor of 2 from the median", "predicted median", "predicted 95 %"]
    assert [named(ax, name) for name in names] == [twice, middle, low]
    for band, ends in zip(ax.collections, ((2.5, 97.5), (10, 90), (25, 75)), strict=True):
        np.testing.assert_allclose(band_edges(band, np.arange(30)), np.percentile(rms, ends, axis=0))
    std, logs = math.sqrt(29 * noise) / 2, np.log(rms[:, -1]) - 14.5 * growth
    share = 100 * math.erfc(math.log(2) / std / math.sqrt(2))
    title = f"Predicted: {share:.1f} % of the networks are beyond a factor of 2"
    check_words(ax, "layer (l)", "RMS of the layer, relative", title)
    strays = (np.abs(logs) > math.log(2)).sum() / 2.5, math.sqrt(share * (100 - share) / 250)
    measured = [f"{x:.1f}" for x in strays], [f"{x:.3f}" for x in std_of(logs)]
    first = f"{math.exp(14.5 * growth):.2g}", 29, f"{share:.1f}", *measured[0]
    check_numbers(sentence, *first, 250, f"{std:.3f}", 2, *measured[1])


def test_the_widest_fan_is_predicted():
    assert f"predicted {np.sqrt(300 * polygamma(1, 8)) / 2:.3f}" in fan_figure(width=16, depth=300)[1]
    assert two(std_of([1.0, 2.0, 4.0])) == f"{std_of([1.0, 2.0, 4.0])}".split(" ± ")


def test_where_no_network_strays_the_share_still_has_an_error():
    assert "predicted 0.1 % of the networks, measured 0.0 ± 0.1 % of" in fan_figure(width=64, depth=5)[1]


def test_one_in_three_strays_where_depth_is_the_width():
    assert "predicted 33.4 % of the networks" in fan_figure(width=64, depth=65)[1]
