"""Lengths over ten thousand layers: the law anew, and the sampler against real kernels."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, title
from scipy.special import digamma, ndtr, polygamma

from course_utils import initializers, network_laws, propagation
from course_utils.comparison import mean_of, std_of
from course_utils.demos.length import length_figure

SETTINGS = {"weights": "Gaussian", "gain": 1.002, "width": 32, "depth": 300.2}
CONTROLS = {
    "weights": ("delta-orthogonal", "flattened orthogonal", "Gaussian"),
    "gain": (0.98, 1.04, 601),
    "width": (16, 64, 256, 1024, 4096, 16384),
    "depth": (10, 10_000, 31),
}
LABELS = ["weights (W)", "gain (√fan_in × std)", "units or channels (n)", "depth (L)"]


@cache
def lengths(weights, width, depth=10_000):
    generator = torch.Generator().manual_seed(0)
    return propagation.log_lengths(weights, width, depth, count=50, generator=generator)


def check(figure, sentence):
    (ax,), layers = figure.axes, np.arange(0, 301, 25)
    measured = np.log10(1.002**layers) + lengths("Gaussian", 32)[:, layers] / math.log(10)
    mean = layers * ((digamma(16) + math.log(2 / 32)) / 2 + math.log(1.002)) / math.log(10)
    std = np.sqrt(layers * polygamma(1, 16)) / 2 / math.log(10)
    markers, middle, low, high = ax.lines
    check_samples(ax, markers, layers, measured)
    check_line(middle, mean, layers)
    check_line(low, mean - 1.96 * std)
    check_line(high, mean + 1.96 * std)
    heading = f"Gaussian, gain 1.0020: 10^{mean[-1]:.1f} after 300 layers"
    check_words(ax, "layer (l)", "log10 of length (|h| / |h₀|)", heading)
    numbers = mean[-1], std[-1], *mean_of(measured[:, -1]), measured[:, -1].std(ddof=1)
    predicted, spread, found, error, measured_spread = (f"{x:.2f}" for x in numbers)
    share = ndtr((1 - mean[-1]) / std[-1]) - ndtr((-1 - mean[-1]) / std[-1])
    shares = 10, f"{100 * share:.0f}", (np.abs(measured[:, -1]) <= 1).sum(), 50
    check_numbers(sentence, 300, predicted, spread, 50, found, error, measured_spread, *shares)


@pytest.mark.parametrize("weights", ["Gaussian", "flattened orthogonal"])
def test_lengths_have_the_law_of_real_kernels(weights):
    generator, channels, logs = torch.Generator().manual_seed(0), 2, []
    init_ = initializers.orthogonal_ if weights == "flattened orthogonal" else initializers.lecun_normal_
    for _ in range(600):
        kernel = init_(torch.empty(channels, channels, 3, 3), generator=generator)
        x = torch.randn(channels, generator=generator)  # an image that is constant in space
        logs.append(((kernel.sum(dim=(2, 3)) @ x).norm() / x.norm()).log().item())
    growth, noise = network_laws.log_length_law(weights, channels)
    found, spread = mean_of(logs), std_of(logs)
    assert abs(found.value - growth) < 4 * found.standard_error
    assert abs(spread.value - noise) < 4 * spread.standard_error
    sampled = np.diff(lengths(weights, channels, 1000), axis=1)
    for estimate, law in ((mean_of(sampled), growth), (std_of(sampled), noise)):
        assert abs(estimate.value - law) < 4 * estimate.standard_error
    wrong, _ = network_laws.log_length_law(weights, 2 * channels)
    assert abs(found.value - wrong) > 4 * found.standard_error


@pytest.mark.parametrize(
    ("settings", "heading", "share"),
    [
        ({"weights": "delta-orthogonal"}, "10^0.0 after 10,000 layers", 100),
        ({"gain": 1.04, "width": 16384}, "10^170.2", 0),
        ({"depth": 10.0, "gain": 0.98, "weights": "flattened orthogonal"}, "10 layers", 100),
    ],
)
def test_edges_of_the_controls_are_drawn(settings, heading, share):
    figure, sentence = length_figure(**settings)
    assert heading in title(figure.axes[0])
    assert f"predicted {share} %" in sentence


def test_networks_are_counted_by_the_factor_that_is_shaded():
    draws = {"count": 50, "generator": torch.Generator().manual_seed(0)}
    logs = np.abs(propagation.log_lengths("Gaussian", 64, 10_000, **draws)[:, 300]) / math.log(10)
    kept, fewer = (np.sum(logs <= limit) for limit in (1, 0.5))
    assert 0 < fewer < kept < 50
    assert f"measured {kept} of 50" in length_figure(depth=300)[1]
