"""Norms: each layer by hand, the law anew and against wide networks."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_drawing, check_line, check_numbers, check_samples, check_words, named

from course_utils import network_laws
from course_utils.comparison import mean_of
from course_utils.demos.norm import NORMS, measured_gradients, norm_figure

SETTINGS = {"norm": "batch norm", "batch": 12, "depth": 15}
CONTROLS = {"norm": tuple(NORMS), "batch": (6, 32, 27), "depth": (5, 50, 46)}
LABELS = ["norm", "images per batch (B)", "depth (L)"]


def batch_growth(batch):
    """Return the factor of batch norm and ReLU on squared gradients, and 1 - k at correlation -1/(B - 1)."""
    angle = math.acos(-1 / (batch - 1))
    k = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    on = (math.pi - angle) / (2 * math.pi)  # the probability that both of two images are on
    return (1 - (1 - 2 * on) / batch - (1 - k) / batch) * batch / (batch - 3) / (1 - k), 1 - k


def check_gradients(figure, sentence, norm, batch, depth, theory):
    (ax,), layers = figure.axes, np.arange(depth + 1)
    measured = measured_gradients(norm, batch, depth)
    check_samples(ax, ax.lines[0], layers, measured)
    check_line(ax.lines[1], theory, layers)
    heading = f"Predicted over {depth} layers: the gradient is multiplied by {theory[0]:.3g}"
    check_words(ax, "layer (l)", "RMS of gradient / last layer's", heading)
    log = (f"{x:.2f}" for x in mean_of(np.log10(measured[:, 0])))
    kept = [np.sum(np.array(rms) <= 100) - 1 for rms in (theory, np.median(measured, axis=0))]
    assert sentence.startswith(f"B{norm[1:]} with")
    first = batch, depth, 10, f"{math.log10(theory[0]):.2f}", *log
    check_numbers(sentence.replace("log10", "10"), *first, 8, 64, 100, *kept, depth)


def check(figure, sentence):
    layers, r = np.arange(16), batch_growth(12)[0]
    check_gradients(figure, sentence, "batch norm", 12, 15, r ** ((15 - layers) / 2))
    limit = named(figure.axes[0], "infinitely many images")
    check_line(limit, (1 - 1 / math.pi) ** ((layers - 15) / 2), layers)


def check_branches(figure, sentence):
    (growth, kept), theory = batch_growth(20), [1.0]
    for layer in range(25, 0, -1):
        theory.insert(0, theory[0] * math.sqrt(1 + growth * kept / (1 + layer * kept)))
    check_gradients(figure, sentence, "batch norm in branches", 20, 25, theory)
    assert len(figure.axes[0].lines) == 2


def test_branches_are_what_they_say():
    check_drawing(check_branches, *norm_figure("batch norm in branches", batch=20, depth=25))


def layer_by_hand(name, z, W):
    """Return the next pre-activations (networks, units, images), from means and variances."""

    def standard(x, dim):
        return (x - x.mean(dim, keepdim=True)) / x.var(dim, correction=0, keepdim=True).sqrt()

    on = torch.clamp(z, min=0)
    return {
        "batch norm": lambda: W @ torch.clamp(standard(z, 2), min=0),
        "batch norm in branches": lambda: z + 2**0.5 * W @ torch.clamp(standard(z, 2), min=0),
        "layer norm after ReLU": lambda: W @ standard(on, 1),
        "layer norm before ReLU": lambda: W @ torch.clamp(standard(z, 1), min=0),
        "none, He's weights": lambda: 2**0.5 * W @ on,
    }[name]()


@pytest.mark.parametrize("name", NORMS)
def test_each_layer_is_the_one_that_its_name_says(name):
    generator = torch.Generator().manual_seed(1)
    z, W = (torch.randn(2, 6, n, generator=generator, dtype=torch.float64) for n in (5, 6))
    torch.testing.assert_close(NORMS[name](z, W), layer_by_hand(name, z, W))


@pytest.mark.parametrize("name", NORMS)
def test_the_predicted_growth_is_that_of_wide_networks(name):
    # The error of order 1/n that width 64 leaves is about a hundredth per layer.
    measured = measured_gradients(name, 16, 12)
    predicted = np.log(network_laws.norm_gradient_factors(name, 16, 12)).sum() / 2
    log = mean_of(np.log(measured[:, 0]))
    assert abs(log.value - predicted) < 4 * log.standard_error + 0.12
    assert measured.shape == (8, 13)
