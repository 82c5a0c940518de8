"""Gains for many activations: lines against another integral, chains against matrices, rules and verdicts."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, named, title, two, z_score

from course_utils import propagation
from course_utils.activations import gelu, tanh
from course_utils.comparison import median_of
from course_utils.demos.gain import (
    ACTIVATIONS,
    BEHIND,
    IN_FRONT,
    RULES,
    gain_figure,
    gains,
    layers_kept,
)
from course_utils.mean_field import length_map

SETTINGS = {"activation": "GELU", "rule": BEHIND, "depth": 20, "width": 64}
CONTROLS = {
    "activation": tuple(ACTIVATIONS),
    "rule": tuple(RULES),
    "depth": (5, 50, 46),
    "width": (32, 64, 128, 256),
}
LABELS = ["activation (φ)", "rule for the gain (g)", "depth (L)", "width (n)"]
Z = np.linspace(-12, 12, 20_001)
DENSITY = np.exp(-(Z**2) / 2) * (Z[1] - Z[0]) / math.sqrt(2 * math.pi)


def expected(f, std=1.0):
    """Return E f(std Z) by the trapezoidal rule."""
    return float(f(torch.from_numpy(std * Z)).numpy() @ DENSITY)


def normals(depth, count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(depth, 2, count, width, generator=generator).numpy()


@cache
def gelu_networks():
    """Return the gain behind, q and the gradient by layer, the slope of q's map, and networks."""
    gain = 1 / math.sqrt(expected(lambda z: gelu(z) ** 2))
    q = [1.0]
    for _ in range(19):
        q.append(gain**2 * expected(lambda z: gelu(z) ** 2, math.sqrt(q[-1])))
    chi = [gain**2 * expected(lambda z: gelu.derivative(z) ** 2, math.sqrt(x)) for x in q]
    gradient = np.array([np.prod(chi[layer:-1]) for layer in range(20)])
    slope = expected(lambda z: gelu(z) * gelu.derivative(z) * z) * gain**2
    signal, errors = propagation.gradient_chain(gelu, (1.0, gain), normals(50, 20, 64)[:20])
    return gain, (np.array(q), gradient), slope, (signal / signal[:, :1], errors)


def check(figure, sentence):
    (ax,), layers, (gain, laws, slope, measured) = figure.axes, np.arange(1, 21), gelu_networks()
    lines = ax.lines
    assert (lines[0], lines[2]) == (named(ax, "signal (q)"), named(ax, "gradient"))
    for points, line, samples, law in zip(lines[::2], lines[1::2], measured, laws, strict=True):
        check_samples(ax, points, layers, samples)
        check_line(line, law, layers)
    ends = np.log([measured[0][:, -1], measured[1][:, 0]])
    within = (np.abs(ends) <= math.log(30)).all(axis=0).sum()
    assert 0 < (np.abs(ends) <= math.log(30) / 2).all(axis=0).sum() < within < 20
    start = f"GELU, gain {gain:.3g}: predicted to keep "
    kept = title(ax).removeprefix(start).split()[0]
    heading = f"{start}{kept} layers; {within} of 20 networks keep 20"
    check_words(ax, "layer (l)", "second moment, relative", heading)
    assert int(kept) == layers_kept(*gelu_theory(50))
    logs = [x for samples in ends / math.log(10) for x in two(median_of(samples))]
    predicted = (f"{abs(math.log10(laws[0][-1])):.2f}", f"{math.log10(laws[1][0]):.2f}")
    rule = "1.00", f"{slope:.2f}", 20
    check_numbers(sentence, *rule, predicted[0], *logs[:2], predicted[1], *logs[2:], within, 20, 30)
    assert "a hilltop" in sentence


@cache
def gelu_theory(depth):
    gain, q = gelu_networks()[0], [1.0]
    for _ in range(depth - 1):
        q.append(gain**2 * expected(lambda z: gelu(z) ** 2, math.sqrt(q[-1])))
    chi = [gain**2 * expected(lambda z: gelu.derivative(z) ** 2, math.sqrt(x)) for x in q]
    return np.array(q), np.array(chi)


def real_gradients(phi, gain, depth, width, networks):
    """Return ln of the last q, and of the first gradient over the last, of plain networks with matrices."""
    generator = torch.Generator().manual_seed(3)
    shape = (depth - 1, networks, width, width)
    matrices = gain / math.sqrt(width) * torch.randn(*shape, generator=generator, dtype=torch.float64)
    first, error = gain * torch.randn(2, networks, 1, width, generator=generator, dtype=torch.float64)
    z = first.requires_grad_()
    for W in matrices:
        z = phi(z) @ W
    (gradient,) = torch.autograd.grad(z, first, error)
    growth = gradient.square().mean(dim=2) / error.square().mean(dim=2)
    return z.detach().square().mean(dim=2).log().numpy().ravel(), growth.log().numpy().ravel()


def test_gradients_without_matrices_have_the_law_of_those_with():
    q, gradient = propagation.gradient_chain(tanh, (1.5, 1.5), normals(6, 300, 32))
    fast = np.log(q[:, -1]), np.log(gradient[:, 0])
    for few, many in zip(fast, real_gradients(tanh, 1.5, 6, 32, 1000), strict=True):
        for power in (1, 2):
            assert abs(z_score(few**power, many**power)) < 4


def test_what_is_known_of_a_matrix_goes_into_the_gradient():
    # One unit: W is known altogether, z2 = w h, and the gradient is phi'(z1) w g, nothing left to chance.
    draws = normals(2, 50, 1)
    z = draws[:, 0, :, 0] * 1.5
    h = np.tanh(z[0])
    z[1] *= np.abs(h)
    _, gradient = propagation.gradient_chain(tanh, (1.5, 1.5), draws)
    # In float32 1 - h**2 has an absolute error of 1e-7, and it may be small.
    np.testing.assert_allclose(gradient[:, 0], ((1 - h**2) * z[1] / h) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "root"), [("ReLU", 2**0.5), ("SELU", 1.0), ("GELU", 1.468), ("SiLU", 1.559), ("Mish", 1.451)]
)
def test_the_gain_in_front_solves_its_equation(name, root):
    first, gain = gains(name, IN_FRONT)
    assert first == gain == pytest.approx(root, abs=1e-3)
    assert expected(lambda z: ACTIVATIONS[name](z) ** 2, gain) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["tanh", "softsign", "sigmoid"])
def test_bounded_activations_have_no_gain_in_front(name):
    assert gains(name, IN_FRONT) is None
    assert f"No gain in front of {name}" in gain_figure(name, IN_FRONT, depth=5)[1]


def test_the_gain_behind_spares_the_first_layer():
    assert gains("ReLU", BEHIND) == pytest.approx((1, 2**0.5))
    assert [gains("tanh", rule)[1] for rule in list(RULES)[:4]] == pytest.approx([3**-0.5, 1, 2**0.5, 5 / 3])


@pytest.mark.parametrize(
    ("name", "words"), [("ReLU", "neutral"), ("SELU", "a valley"), ("SiLU", "a hilltop")]
)
def test_the_sentence_says_whether_a_fixed_point_holds(name, words):
    assert words in gain_figure(name, IN_FRONT, depth=5)[1]


@pytest.mark.parametrize("name", ["GELU", "SiLU", "ELU"])
def test_the_sentence_gives_the_slope_at_the_fixed_point(name):
    gain = gains(name, IN_FRONT)[1]
    above, below = (length_map(ACTIVATIONS[name], gain**2 * x, gain) for x in (1.001, 0.999))
    slope = (above - below) / (0.002 * gain**2)
    said = f"q = {gain**2:.2f} is a fixed point"
    sentence = gain_figure(name, IN_FRONT, depth=5)[1]
    assert said in sentence
    assert f"multiplies small errors by {slope:.2f}." in sentence


def test_layers_are_kept_until_signal_or_gradient_leaves():
    even = np.ones(50)
    assert layers_kept(even, even) == 50
    assert layers_kept(2.0 ** -np.arange(50), even) == 5  # 2**-4 is kept, 2**-5 is not
    assert layers_kept(even, 2 * even) == 5
    assert layers_kept(3.0 ** np.arange(50), 2 * even) == 4
    assert (
        layers_kept(even, np.append(40.0, even[1:])) == 1
    )  # the first layer's chi counts, the last one's not
    assert layers_kept(even, np.append(even[1:], 40.0)) == 50
    assert "predicted to keep 5 layers; 0 of 20 networks keep 30" in title(
        gain_figure("ReLU", "Xavier: 1", depth=30)[0].axes[0]
    )
