"""Gradients around a circle: networks against the chain rule by hand, the law against both."""

import math
from functools import cache

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_samples, check_words, title, two

from course_utils.comparison import mean_of
from course_utils.demos.gradient import (
    circle_draws,
    gradient_figure,
    measured_correlations,
    predicted_correlations,
)

SETTINGS = {"architecture": "residual", "branch": 0.5, "depth": 7}
KINDS = ("plain", "normalized", "looks-linear", "residual")
CONTROLS = {"architecture": KINDS, "branch": (0.02, 2, 100), "depth": (1, 50, 50)}
LABELS = ["architecture", "residual branch × (β)", "depth (L)"]


def arc_cosine(c):
    theta = np.arccos(np.clip(c, -1, 1))
    return (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi, 1 - theta / np.pi


def gradient_law(architecture, branch, depth):
    S, product, square = np.cos(2 * np.pi * np.arange(32) / 32), np.ones(32), 1.0
    for _ in range(depth):
        centred = S if architecture == "plain" else S - S.mean()
        variance = centred[0]
        kernel, kept = arc_cosine(centred / variance)
        if architecture == "residual":
            product = product * (1 + branch**2 / variance * kept)
            square = square * (1 + branch**2 / variance)
            S = S + branch**2 * kernel
        else:
            product, S = product * kept, kernel
    return product / square


@cache
def backpropagated(architecture, branch, depth):
    """Return the gradients' correlation by lag, (networks, 32), with the chain rule written out."""
    inputs, errors, weights = (tensor.numpy() for tensor in circle_draws())
    rows = []
    for network in range(len(inputs)):
        z, g, slopes = inputs[network], errors[network], []
        for W in weights[:depth, network]:
            scale = 1.0
            y = z
            if architecture in ("normalized", "residual"):
                y = z - z.mean(axis=0)
                scale = math.sqrt((y**2).mean())
            active, h = y > 0, np.maximum(y, 0) / scale
            change = h @ W - (np.maximum(-y, 0) @ W if architecture == "looks-linear" else 0)
            slopes.append((np.ones_like(y) if architecture == "looks-linear" else active / scale, W))
            z = z + branch * change if architecture == "residual" else change
        for slope, W in reversed(slopes):
            back = slope * (g @ W.T)
            g = g + branch * back if architecture == "residual" else back
        gram = g @ g.T
        lags = [np.mean([gram[i, (i + lag) % 32] for i in range(32)]) for lag in range(32)]
        rows.append(np.array(lags) / lags[0])
    return np.array(rows)


def check(figure, sentence):
    (ax,), angles = figure.axes, 11.25 * np.arange(17)
    markers, theory, brownian = ax.lines
    predicted, measured = gradient_law("residual", 0.5, 7), backpropagated("residual", 0.5, 7)
    check_line(theory, predicted[:17], angles)
    check_samples(ax, markers, angles, measured[:, :17])
    check_line(brownian, [1, 0], [0, 180])
    assert "Brownian motion:\none plain layer" in [text.get_text() for text in ax.texts]
    heading = f"7 layers, residual, branches × 0.5: ρ = {predicted[1]:.2f} for neighbours"
    check_words(ax, "angle between two inputs (δ, degrees)", "correlation of gradients (ρ)", heading)
    near, right = (two(mean_of(measured[:, lag])) for lag in (1, 8))
    start = "11.25", f"{predicted[1]:.4f}", 10, 64
    check_numbers(sentence, *start, *near, "0.938", f"{predicted[8]:.4f}", *right, "0.500")


@pytest.mark.parametrize("architecture", KINDS)
def test_gradients_are_those_of_the_chain_rule(architecture):
    measured = measured_correlations(architecture, 0.4, 5)
    np.testing.assert_allclose(measured, backpropagated(architecture, 0.4, 5), atol=1e-10)


@pytest.mark.parametrize("architecture", ["plain", "normalized", "residual"])
def test_the_law_is_the_product_over_layers(architecture):
    predicted = predicted_correlations(architecture, 0.4, 9)
    np.testing.assert_allclose(predicted, gradient_law(architecture, 0.4, 9), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("architecture", "depth"), [("plain", 2), ("normalized", 3), ("residual", 8)])
def test_gradients_of_networks_follow_the_law(architecture, depth):
    predicted = predicted_correlations(architecture, 1.0, depth)
    for lag in (1, 4, 8):
        rho, error = mean_of(measured_correlations(architecture, 1.0, depth)[:, lag])
        assert abs(rho - predicted[lag]) < 4 * error


def test_looks_linear_gradients_are_all_the_same():
    assert (predicted_correlations("looks-linear", 1.0, 50) == 1).all()
    np.testing.assert_allclose(measured_correlations("looks-linear", 1.0, 50), 1, atol=1e-10)
    assert title(gradient_figure("looks-linear", depth=1)[0].axes[0]).startswith(
        "1 layer, looks-linear: ρ = 1.00"
    )
