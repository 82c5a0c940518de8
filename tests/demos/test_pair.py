"""Pairs of inputs: theory against a fine grid and the package's exact map, the chain against matrices."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, named, title, z_score

from course_utils import initializers, mean_field, network_laws, propagation
from course_utils.activations import relu, tanh
from course_utils.comparison import mean_of
from course_utils.demos.pair import pair_figure, trainable_depth

SETTINGS = {"activation": "tanh", "gain": 1.9, "bias_std": 0.3, "depth": 36}
CONTROLS = {
    "activation": ("tanh", "ReLU"),
    "gain": (0.7, 3, 231),
    "bias_std": (0, 1, 21),
    "depth": (10, 100, 10),
}
LABELS = ["activation (φ)", "gain (σ_w = √n × std)", "bias std (σ_b)", "depth (L)"]


@cache
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


def normals(depth, count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(depth, 2, count, 128, generator=generator).numpy()


@cache
def measured_pairs():
    return propagation.pair_chain(tanh, 1.9, (0.6, 0.99), normals(100)[:36], bias_std=0.3)


def check(figure, sentence):
    (ax,), layers, measured = figure.axes, np.arange(1, 37), measured_pairs()
    strangers, chi = tanh_correlations(1.9, 0.3, 36, 0.6)
    twins, _ = tanh_correlations(1.9, 0.3, 36, 0.99)
    near, near_theory, far, far_theory, limit = ax.lines
    assert (near, far) == (named(ax, "strangers, cosine 0.6"), named(ax, "twins, cosine 0.99"))
    check_line(near_theory, strangers, layers)
    check_line(far_theory, twins, layers)
    for markers, samples in zip((near, far), measured, strict=True):
        check_samples(ax, markers, layers[::3], samples[:, ::3])
    reach, gap = math.log(900) / abs(math.log(chi)), twins[-1] - strangers[-1]
    check_line(limit, [0, 0.88], [reach] * 2)
    (note,) = (text for text in ax.texts if text.get_text() == " trains to about here ")
    assert note.get_position() == pytest.approx((reach, 1.09))
    heading = f"Chaos, χ₁ = {chi:.2f}: twins and strangers differ by {gap:.2f} in layer 36"
    check_words(ax, "layer (l)", "correlation of two inputs (c)", heading)
    found = (f"{x:.4f}" for x in mean_of(measured[1][:, -1] - measured[0][:, -1]))
    check_numbers(sentence, 36, f"{gap:.4f}", 20, 128, *found, f"{chi:.3f}", 900, f"{reach:.0f}")


@pytest.mark.parametrize(("phi", "gain", "bias_std"), [(tanh, 0.7, 0.0), (tanh, 3.0, 1.0), (relu, 3.0, 0.3)])
def test_the_quick_correlations_are_those_of_the_exact_map(phi, gain, bias_std):
    quick = network_laws.correlations(phi, gain, 6, (0.6, 0.99), bias_std=bias_std)
    moments = mean_field.second_moments(phi, gain, 5, bias_std=bias_std)
    for row, cosine in zip(quick, (0.6, 0.99), strict=True):
        cosines = mean_field.cosines(phi, cosine, gain, 5, bias_std=bias_std)
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


@pytest.mark.parametrize("cosine", [0.6, 0.99])
def test_the_pair_chain_has_the_law_of_matrices(cosine):
    generator = torch.Generator().manual_seed(0)
    real = [real_correlation(generator, 2.0, 0.2, cosine) for _ in range(100)]
    sampled = propagation.pair_chain(tanh, 2.0, [cosine], normals(5, 100), bias_std=0.2)[0, :, 4]
    assert abs(z_score(sampled, real)) < 4
    wrong_gain = propagation.pair_chain(tanh, 3.0, [cosine], normals(5, 100), bias_std=0.2)[0, :, 4]
    assert abs(z_score(wrong_gain, real)) > 4


@pytest.mark.parametrize(
    ("activation", "gain", "bias_std", "phase"),
    [
        ("tanh", 0.7, 0.0, "Order, χ₁ = 0.49"),
        ("tanh", 1.0, 0.0, "Edge, χ₁ = 1.00"),
        ("ReLU", 0.7, 0.0, "Order"),
        ("ReLU", 3.0, 0.0, "Explosion, χ₁ = 4.50"),
    ],
)
def test_the_title_names_the_phase(activation, gain, bias_std, phase):
    figure, sentence = pair_figure(activation, gain, bias_std, 10)
    assert title(figure.axes[0]).startswith(phase)
    assert ("at every depth shown here" in sentence) == phase.startswith("Edge")


@pytest.mark.parametrize("gain", [0.7, 3.0])
def test_order_and_chaos_both_train_up_to_a_factor_of_900(gain):
    chi = gain**2 / 2
    assert trainable_depth(relu, gain, 0.0) == pytest.approx((chi, math.log(900) / abs(math.log(chi))))


def test_a_reach_beyond_the_layers_drawn_is_said_too():
    assert "up to about 28 layers" in pair_figure("tanh", 1.9, 0.3, 10)[1]
