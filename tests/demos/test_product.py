"""Products of matrices: both laws against formulas written anew, and what the matrices are."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, levels, named, title
from scipy.special import digamma

from course_utils.comparison import mean_of
from course_utils.demos.product import product_figure, products, usable

SETTINGS = {"weights": "Gaussian", "width": 16, "depth": 6}
CONTROLS = {"weights": ("orthogonal", "Gaussian"), "width": (8, 16, 32, 64), "depth": (1, 50, 50)}
LABELS = ["weights (W)", "width (n)", "depth (L)"]


@cache
def product_quantiles(depth, width):
    """Return the quantiles of squared singular values of Gaussian products, the density integrated anew."""
    t = np.linspace(0, math.pi / (depth + 1), 400_001)[1:-1]
    x = np.sin((depth + 1) * t) ** (depth + 1) / (np.sin(t) * np.sin(depth * t) ** depth)
    density = np.sin(t) ** 2 * np.sin(depth * t) ** (depth - 1) / (np.pi * np.sin((depth + 1) * t) ** depth)
    mass = (density[1:] + density[:-1]) / 2 * -np.diff(x)
    return np.exp(np.interp((np.arange(width) + 0.5) / width, np.append(0, mass.cumsum()), np.log(x)))


def check(figure, sentence):
    (ax,), width, ranks = figure.axes, 16, np.arange(1, 17)
    s = np.log10(np.linalg.svd(products("Gaussian", width)[5].numpy(), compute_uv=False))
    markers, shallow, deep, _ = ax.lines
    check_samples(ax, markers, (ranks - 0.5) / width, s)
    wide = np.log10(product_quantiles(6, width)) / 2
    assert (shallow, deep) == (named(ax, "predicted for L ≪ n"), named(ax, "predicted for L ≫ n"))
    np.testing.assert_allclose(shallow.get_ydata(), wide, rtol=2e-4, atol=2e-4)
    far = 6 * (digamma((width - ranks + 1) / 2) + math.log(2 / width)) / 2 / math.log(10)
    check_line(deep, far)
    assert levels(ax) == pytest.approx({"1,000 times below the largest": np.median(s[:, 0]) - 3})
    found = mean_of(100 * (s > s[:, :1] - 3).mean(axis=1))
    heading = f"6 Gaussian layers: {found.value:.0f} % of the directions are usable"
    check_words(ax, "share of directions (k/n), best first", "log10 of singular value (s)", heading)
    laws = (f"{100 * np.mean(law > law[0] - 3):.0f}" for law in (wide, far))
    check_numbers(sentence, "1,000", *laws, 20, *(f"{x:.1f}" for x in found), 10, -9)


@pytest.mark.parametrize(
    ("weights", "width", "count"), [("orthogonal", 8, 4), ("Gaussian", 32, 20), ("Gaussian", 64, 10)]
)
def test_there_are_so_many_products(weights, width, count):
    assert products(weights, width).shape == (50, count, width, width)


def test_products_have_the_variance_and_the_rotations_they_say():
    s = torch.linalg.svdvals(products("Gaussian", 16)[0]).numpy()
    mean = mean_of((s**2).mean(axis=1))
    assert abs(mean.value - 1) < 4 * mean.standard_error
    assert abs(mean.value - 1.2) > 4 * mean.standard_error
    s = torch.linalg.svdvals(products("orthogonal", 8)[-1]).numpy()
    np.testing.assert_allclose(s, 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "heading"),
    [
        ({"weights": "orthogonal", "width": 8, "depth": 50}, "50 orthogonal layers: 100 %"),
        ({"width": 64, "depth": 1}, "1 Gaussian layer: 100 %"),
    ],
)
def test_the_title_says_how_many_directions_are_usable(settings, heading):
    assert title(product_figure(**settings)[0].axes[0]).startswith(heading)


def test_half_of_all_directions_are_lost_after_some_16_layers_at_any_width():
    for width in (8, 16, 32, 64):
        at_12, at_20 = (
            usable(np.log10(torch.linalg.svdvals(products("Gaussian", width)[depth - 1]).numpy())).mean()
            for depth in (12, 20)
        )
        assert at_12 > 0.5 > at_20
