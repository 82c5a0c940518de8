"""Drawings of notebooks 08 to 11: lines and numbers against formulas written anew here."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_drawing, check_finite, check_line, check_numbers, z_score
from scipy.special import digamma, ndtr, polygamma

from course_utils import initializers, mean_field
from course_utils.activations import relu, tanh
from course_utils.comparison import mean_of, std_of
from course_utils.demos import theory as drawings


def tanh_correlations(gain, bias_std, depth, cosine):
    """Return c_1, ..., c_depth and chi_1 of tanh by a fine grid."""
    x = np.linspace(-8, 8, 201)
    weights = np.exp(-(x**2) / 2) * (x[1] - x[0]) / math.sqrt(2 * math.pi)
    second, product, correlations = 1.0, cosine, []
    for _ in range(depth):
        q = gain**2 * second + bias_std**2
        c = (gain**2 * product + bias_std**2) / q
        h = np.tanh(math.sqrt(q) * x)
        other = np.tanh(math.sqrt(q) * (c * x[:, None] + math.sqrt(1 - c**2) * x))
        second, product = weights @ h**2, weights @ (h[:, None] * other) @ weights
        correlations.append(c)
    for _ in range(300):
        q = gain**2 * weights @ np.tanh(math.sqrt(q) * x) ** 2 + bias_std**2
    slope = 1 - np.tanh(math.sqrt(q) * x) ** 2
    return np.array(correlations), gain**2 * weights @ slope**2


def check_pair(figure, sentence):
    strangers, chi = tanh_correlations(1.9, 0.3, 36, 0.6)
    twins, _ = tanh_correlations(1.9, 0.3, 36, 0.99)
    measured = drawings._measured_correlations(tanh, 1.9, 0.3, 36)
    *pairs, limit = figure.axes[0].lines
    for markers, theory, predicted, samples in zip(
        pairs[::2], pairs[1::2], (strangers, twins), measured, strict=True
    ):
        check_line(theory, predicted, np.arange(1, 37))
        check_line(markers, np.median(samples, axis=0)[::3], np.arange(1, 37)[::3])
    reach = math.log(900) / abs(math.log(chi))
    check_line(limit, [0, 0.88], [reach] * 2)
    gap, error = mean_of(measured[1][:, -1] - measured[0][:, -1])
    numbers = (f"{x:.4f}" for x in (twins[-1] - strangers[-1], gap, error))
    check_numbers(sentence, "36", "128", f"{reach:.0f}", *numbers, f"{chi:.3f}")
    assert f"Chaos, χ₁ = {chi:.2f}" in figure.axes[0].get_title(loc="left") + figure.axes[0].get_title()


def product_quantiles(depth, shares):
    """Return quantiles of the squared singular values of Gaussian products, the density integrated anew."""
    t = np.linspace(0, math.pi / (depth + 1), 400_001)[1:-1]
    x = np.sin((depth + 1) * t) ** (depth + 1) / (np.sin(t) * np.sin(depth * t) ** depth)
    density = np.sin(t) ** 2 * np.sin(depth * t) ** (depth - 1) / (np.pi * np.sin((depth + 1) * t) ** depth)
    mass = (density[1:] + density[:-1]) / 2 * -np.diff(x)
    above = np.append(0, mass.cumsum())
    return np.exp(np.interp(shares, above, np.log(x)))


def check_product(figure, sentence):
    depth, width, ranks = 6, 16, np.arange(1, 17)
    s = np.log10(np.linalg.svd(drawings._products("Gaussian", width)[depth - 1].numpy(), compute_uv=False))
    markers, shallow, deep, floor = figure.axes[0].lines
    check_line(markers, np.median(s, axis=0), (ranks - 0.5) / width)
    wide = np.log10(product_quantiles(depth, (ranks - 0.5) / width)) / 2
    np.testing.assert_allclose(shallow.get_ydata(), wide, rtol=2e-4, atol=2e-4)
    log_chi = (digamma((width - ranks + 1) / 2) + math.log(2 / width)) / 2
    check_line(deep, depth * log_chi / math.log(10))
    check_line(floor, [np.median(s[:, 0]) - 3] * 2)
    found, error = mean_of(100 * (s > s[:, :1] - 3).mean(axis=1))
    laws = (100 * np.mean(law > law[0] - 3) for law in (wide, depth * log_chi / math.log(10)))
    check_numbers(sentence, "20", f"{found:.1f}", f"{error:.1f}", *(f"{x:.0f}" for x in laws))


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


def backpropagated(architecture, branch, depth):
    """Return the gradients' correlation by lag, (networks, 32), with the chain rule written out."""
    ends, weights = (tensor.numpy() for tensor in drawings._circle_weights())
    t, rows = 2 * np.pi * np.arange(32) / 32, []
    for network in range(len(ends)):
        u, v, readout = ends[network]
        z, slopes = np.outer(np.cos(t), u) + np.outer(np.sin(t), v), []
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
        g = np.tile(readout, (32, 1))
        for slope, W in reversed(slopes):
            back = slope * (g @ W.T)
            g = g + branch * back if architecture == "residual" else back
        gram = g @ g.T
        lags = [np.mean([gram[i, (i + lag) % 32] for i in range(32)]) for lag in range(32)]
        rows.append(np.array(lags) / lags[0])
    return np.array(rows)


def check_gradient(figure, sentence):
    markers, theory, brownian = figure.axes[0].lines
    predicted, measured = gradient_law("residual", 0.5, 7), backpropagated("residual", 0.5, 7)
    check_line(theory, predicted[:17], 11.25 * np.arange(17))
    check_line(markers, np.median(measured[:, :17], axis=0))
    check_line(brownian, [1, 0], [0, 180])
    numbers = [f"{predicted[1]:.4f}", f"{predicted[8]:.4f}"]
    numbers += [text for lag in (1, 8) for text in f"{mean_of(measured[:, lag])}".split(" ± ")]
    check_numbers(sentence, "11.25", "10", "64", "0.938", "0.500", *numbers)


def check_length(figure, sentence):
    layers = np.array([0, 25, 50, 75, 100, 125, 150, 175, 200, 225, 250, 275, 300])
    measured = np.log10(1.002**layers) + drawings._log_lengths("Gaussian", 32)[:, layers] / math.log(10)
    mean = layers * ((digamma(16) + math.log(2 / 32)) / 2 + math.log(1.002)) / math.log(10)
    std = np.sqrt(layers * polygamma(1, 16)) / 2 / math.log(10)
    markers, middle, low, high = figure.axes[0].lines
    check_line(markers, np.median(measured, axis=0), layers)
    check_line(middle, mean, layers)
    check_line(low, mean - 1.96 * std)
    check_line(high, mean + 1.96 * std)
    found, error = mean_of(measured[:, -1])
    spread = measured[:, -1].std(ddof=1)
    share = ndtr((1 - mean[-1]) / std[-1]) - ndtr((-1 - mean[-1]) / std[-1])
    numbers = mean[-1], std[-1], found, error, spread
    within = str((np.abs(measured[:, -1]) <= 1).sum())
    check_numbers(sentence, "300", within, f"{100 * share:.0f}", *(f"{x:.2f}" for x in numbers))


DRAWINGS = {
    check_pair: lambda: drawings.pair_figure("tanh", 1.9, 0.3, 36),
    check_product: lambda: drawings.product_figure("Gaussian", 16, 6),
    check_gradient: lambda: drawings.gradient_figure("residual", 0.5, 7),
    check_length: lambda: drawings.length_figure("Gaussian", 1.002, 32, 300.2),
}


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_lines_and_sentence_are_what_they_say(check):
    check_drawing(check, *DRAWINGS[check]())


@pytest.mark.parametrize(("phi", "gain", "bias_std"), [(tanh, 0.7, 0.0), (tanh, 3.0, 1.0), (relu, 3.0, 0.3)])
def test_the_quick_correlation_map_is_that_of_the_package(phi, gain, bias_std):
    quick = drawings._predicted_correlations(phi, gain, bias_std, 12)
    moments = mean_field.second_moments(phi, gain, 11, bias_std=bias_std)
    for row, cosine in zip(quick, (0.6, 0.99), strict=True):
        cosines = mean_field.cosines(phi, cosine, gain, 11, bias_std=bias_std)
        exact = (gain**2 * moments * cosines + bias_std**2) / (gain**2 * moments + bias_std**2)
        np.testing.assert_allclose(row, exact, atol=1e-5)  # a hundredth of the last digit shown


def real_correlation(generator, gain, bias_std, cosine, depth=5, width=128):
    """Return the correlation of two inputs' pre-activations in layer `depth` of one network of matrices."""
    x = initializers.orthogonal_(torch.empty(2, width), math.sqrt(width), generator)
    h = torch.stack([x[0], cosine * x[0] + math.sqrt(1 - cosine**2) * x[1]])
    for _ in range(depth - 1):
        weight = torch.randn(width, width, generator=generator) * gain / math.sqrt(width)
        h = torch.tanh(h @ weight + bias_std * torch.randn(width, generator=generator))
    gram = gain**2 * h @ h.T / width + bias_std**2  # of the last layer's z, given its inputs
    return (gram[0, 1] / (gram[0, 0] * gram[1, 1]).sqrt()).item()


@pytest.mark.parametrize(("pair", "cosine"), [(0, 0.6), (1, 0.99)])
def test_the_pair_chain_has_the_law_of_matrices(pair, cosine):
    generator = torch.Generator().manual_seed(0)
    real = [real_correlation(generator, 2.0, 0.2, cosine) for _ in range(100)]
    sampled = drawings._measured_correlations(tanh, 2.0, 0.2, 5)[pair, :, 4]
    assert abs(z_score(sampled, real)) < 4
    wrong_gain = drawings._measured_correlations(tanh, 3.0, 0.2, 5)[pair, :, 4]
    assert abs(z_score(wrong_gain, real)) > 4


def test_products_have_the_variance_and_the_rotations_they_say():
    s = torch.linalg.svdvals(drawings._products("Gaussian", 16)[0]).numpy()
    mean = mean_of((s**2).mean(axis=1))
    assert abs(mean.value - 1) < 4 * mean.standard_error
    assert abs(mean.value - 1.2) > 4 * mean.standard_error
    s = torch.linalg.svdvals(drawings._products("orthogonal", 8)[-1]).numpy()
    np.testing.assert_allclose(s, 1, rtol=1e-12)


@pytest.mark.parametrize("architecture", ["plain", "normalized", "residual", "looks-linear"])
def test_gradients_are_those_of_the_chain_rule(architecture):
    measured = drawings._measured_gradients(architecture, 0.4, 5)
    np.testing.assert_allclose(measured, backpropagated(architecture, 0.4, 5), atol=1e-10)


@pytest.mark.parametrize("architecture", ["plain", "normalized", "residual"])
def test_predicted_gradients_are_the_product_over_layers(architecture):
    predicted = drawings._predicted_gradients(architecture, 0.4, 9)
    np.testing.assert_allclose(predicted, gradient_law(architecture, 0.4, 9), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("architecture", "depth"), [("plain", 2), ("normalized", 3), ("residual", 8)])
def test_gradients_of_networks_follow_the_prediction(architecture, depth):
    predicted = drawings._predicted_gradients(architecture, 1.0, depth)
    measured = drawings._measured_gradients(architecture, 1.0, depth)
    for lag in (1, 4, 8):
        rho, error = mean_of(measured[:, lag])
        assert abs(rho - predicted[lag]) < 4 * error


def test_looks_linear_gradients_are_all_the_same():
    assert (drawings._predicted_gradients("looks-linear", 1.0, 50) == 1).all()
    np.testing.assert_allclose(drawings._measured_gradients("looks-linear", 1.0, 50), 1, atol=1e-10)


@pytest.mark.parametrize("weights", ["Gaussian", "flattened orthogonal"])
def test_lengths_have_the_law_of_real_kernels(weights):
    generator, channels, logs = torch.Generator().manual_seed(0), 2, []
    init_ = initializers.orthogonal_ if weights == "flattened orthogonal" else initializers.lecun_normal_
    for _ in range(600):
        kernel = init_(torch.empty(channels, channels, 3, 3), generator=generator)
        x = torch.randn(channels, generator=generator)  # an image that is constant in space
        logs.append(((kernel.sum(dim=(2, 3)) @ x).norm() / x.norm()).log().item())
    growth, noise = drawings._length_law(weights, channels)
    found, spread = mean_of(logs), std_of(logs)
    assert abs(found.value - growth) < 4 * found.standard_error
    sampled = drawings._log_lengths(weights, channels)[:, -1] / 10_000
    assert abs(sampled.mean() - growth) < 4 * noise / math.sqrt(50 * 10_000)
    wrong, _ = drawings._length_law(weights, 2 * channels)
    assert abs(found.value - wrong) > 4 * found.standard_error
    assert abs(spread.value - noise) < 4 * spread.standard_error


EDGES = [
    (drawings.pair_figure, {"gain": 0.7, "bias_std": 0.0, "depth": 100}, "Order, χ₁ = 0.49"),
    (drawings.pair_figure, {"gain": 1.0, "bias_std": 0.0}, "Edge, χ₁ = 1.00"),
    (drawings.pair_figure, {"activation": "ReLU", "gain": 0.7, "bias_std": 0.0, "depth": 100}, "Order"),
    (
        drawings.pair_figure,
        {"activation": "ReLU", "gain": 3.0, "bias_std": 0.0, "depth": 100},
        "Explosion, χ₁ = 4.50",
    ),
    (drawings.pair_figure, {"activation": "ReLU", "gain": 3.0, "bias_std": 1.0, "depth": 10}, "0.09"),
    (drawings.product_figure, {"weights": "orthogonal", "depth": 50}, "50 orthogonal layers: 100 %"),
    (drawings.product_figure, {"width": 8, "depth": 50}, "50 Gaussian layers"),
    (drawings.product_figure, {"width": 64, "depth": 1}, "1 Gaussian layer: 100 %"),
    (drawings.gradient_figure, {"branch": 0.02, "depth": 1}, "1 layer, residual, branches × 0.02: ρ = 1.00"),
    (drawings.gradient_figure, {"architecture": "normalized", "depth": 50}, "ρ = 0.00"),
    (drawings.gradient_figure, {"architecture": "looks-linear", "depth": 50}, "ρ = 1.00"),
    (drawings.length_figure, {"weights": "delta-orthogonal"}, "10^0.0 after 10,000 layers"),
    (drawings.length_figure, {"gain": 1.04, "width": 16384}, "10^170.2"),
    (drawings.length_figure, {"depth": 10.0, "gain": 0.98, "weights": "flattened orthogonal"}, "10 layers"),
]


@pytest.mark.parametrize(("draw", "settings", "title"), EDGES)
def test_edges_of_the_controls_are_drawn(draw, settings, title):
    figure, sentence = draw(**settings)
    check_finite(figure, sentence)
    assert title in "".join(figure.axes[0].get_title(loc=place) for place in ("left", "center"))


def test_half_of_all_directions_are_lost_after_14_to_16_layers_at_any_width():
    for width in (8, 16, 32, 64):
        usable = [
            drawings._usable(np.log10(torch.linalg.svdvals(P).numpy())).mean()
            for P in drawings._products("Gaussian", width)[13:16]
        ]
        assert usable[0] > 0.5 > usable[-1]
