"""Drawings of notebooks 05 to 07: lines and numbers against formulas written anew here."""

import itertools
import math

import numpy as np
import pytest
import torch
from drawing_checks import check_drawing, check_finite, check_line, check_numbers, z_score
from scipy import integrate, stats
from scipy.special import logsumexp

from course_utils import data
from course_utils.comparison import compare, mean_of
from course_utils.demos import training as drawings_training

PRODUCT = {"fan_in": lambda a, b: a, "fan_out": lambda a, b: b, "fan_avg": lambda a, b: (a + b) / 2}


def three_digits(sentence, *values):
    """Assert that each value stands in the sentence to at least three digits."""
    numbers = [float(word.strip(",.;")) for word in sentence.split() if word.strip(",.;")[-1:].isdigit()]
    for value in values:
        assert any(math.isclose(x, value, rel_tol=5e-3) for x in numbers), (value, sentence)


def pyramid_chains(widths, mode):
    variances = [2 / PRODUCT[mode](a, b) for a, b in itertools.pairwise(widths)]
    rng = np.random.default_rng(0)
    return drawings_training.pyramid_chains(np.array(widths), np.array(variances), rng)


def check_pyramid(figure, sentence):
    widths = [128, 384, 128, 384, 128]
    signal_line, signal_theory, gradient_line, gradient_theory = figure.axes[0].lines
    signal, gradient = pyramid_chains(widths, "fan_avg")
    layers = np.arange(5)
    check_line(signal_line, signal.mean(axis=0), layers)
    check_line(gradient_line, gradient.mean(axis=0), layers)
    # 2 / fan_avg = 1 / 128: a layer multiplies by n / 256, upwards with its fan-in, downwards its fan-out.
    check_line(signal_theory, [1, 0.5, 0.75, 0.375, 0.5625], layers)
    check_line(gradient_theory, [0.5625, 0.375, 0.75, 0.5, 1], layers)
    three_digits(sentence, 0.5625, signal[:, -1].mean(), gradient[:, 0].mean())
    check_numbers(sentence, "4", "500")


def mean_first_loss(gain, p, multiple):
    """Return E ln sum exp(z) - E z_label by E ln S = int (exp(-s) - E exp(-s S)) / s ds, with s = exp(u)."""
    z, step = np.linspace(-9, 9, 721, retstep=True)
    density = stats.norm.pdf(z) * step

    def integrand(u):
        below = [np.exp(-np.exp(u + multiple * np.log(q) + gain * z)) @ density for q in p]
        return math.exp(-math.exp(u)) - math.prod(below)

    value = integrate.quad(integrand, -60, 60, limit=400, points=[-5, 0, 5], epsabs=1e-9)[0]
    return value - multiple * sum(q * math.log(q) for q in p)


def first_losses(gain, p, multiple):
    logits = gain * drawings_training.unit_logits()[:, : len(p), :, : len(p)] + multiple * np.log(p)
    losses = logsumexp(logits, axis=-1) - np.stack([logits[:, k, :, k] for k in range(len(p))], axis=1)
    return losses.mean(axis=2) @ p


def check_first_loss(figure, sentence):
    gain, p = 1.5, np.array([0.7, 0.1, 0.1, 0.1])
    markers, theory, best, blind, informed = figure.axes[0].lines
    multiples = np.arange(61) / 20
    expected = np.array([mean_first_loss(gain, p, b) for b in multiples[::4]])
    check_line(markers, [first_losses(gain, p, b / 2).mean() for b in range(7)], np.arange(7) / 2)
    np.testing.assert_allclose(theory.get_xdata(), multiples)
    np.testing.assert_allclose(theory.get_ydata()[::4], expected, rtol=2e-6)
    lowest = np.argmin(theory.get_ydata())
    check_line(best, [theory.get_ydata()[lowest]], [multiples[lowest]])
    check_line(blind, [math.log(4)] * 2)
    entropy = -0.7 * math.log(0.7) - 0.3 * math.log(0.1)
    check_line(informed, [entropy] * 2)
    check_numbers(sentence, f"{entropy:.3f}", f"{theory.get_ydata()[lowest]:.3f}", "200")
    three_digits(sentence, expected[0], expected[5])
    three_digits(sentence, first_losses(gain, p, 0).mean(), first_losses(gain, p, 1).mean())


def digits_batch():
    images = data.digits()
    index = [i for k in range(10) for i in np.flatnonzero(images.train_labels.numpy() == k)[:3]]
    return images.train_inputs[index].double().numpy(), images.train_labels[index].numpy()


def backpropagate(weights, inputs, labels, *, guess=False):
    """Return loss and gradients of one ReLU network, by hand; `guess` takes the error of a uniform guess."""
    h = [inputs]
    for weight in weights[:-1]:
        h.append(np.maximum(h[-1] @ weight.T, 0))
    logits = h[-1] @ weights[-1].T
    own = np.arange(10) == labels[:, None]
    loss = (logsumexp(logits, axis=1) - logits[own]).mean()
    share = 0.1 if guess else np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    error, gradients = (share - own) / len(labels), []
    for weight, below in zip(weights[::-1], h[::-1], strict=True):
        gradients.insert(0, error.T @ below)
        error = (error @ weight) * (below > 0)
    return loss, gradients


def first_steps(hidden, rate, optimizer):
    """Return measured and predicted shares, each (factors, networks), and the first losses."""
    he = [[w[i].numpy() for w in drawings_training.he_weights(hidden)] for i in range(6)]
    batch = digits_batch()
    step = {"SGD": lambda g: rate * g, "Adam": lambda g: rate * g / (np.abs(g) + 1e-8)}[optimizer]
    measured, predicted, first = np.empty((3, 9, 6))
    for row, c in enumerate(2.0 ** (np.arange(9) / 2 - 2)):
        for i, (*layers, last) in enumerate(he):
            weights = [*(c * w for w in layers), last]
            before, gradients = backpropagate(weights, *batch)
            moved = [w - step(g) for w, g in zip(weights, gradients, strict=True)]
            measured[row, i] = 1 - backpropagate(moved, *batch)[0] / before
            _, guess = backpropagate(he[i], *batch, guess=True)
            scaled = [c ** (hidden - 1) * g for g in guess[:-1]] + [c**hidden * guess[-1]]
            predicted[row, i] = sum((g * step(g)).sum() for g in scaled) / math.log(10)
            first[row, i] = before
    return measured, predicted, first


def check_steps(figure, sentence, optimizer, rate):
    measured, predicted, first = first_steps(3, rate, optimizer)
    octaves, median = np.arange(9) / 2 - 2, np.median(measured, axis=1)
    near, far, rises, theory, one_percent = figure.axes[0].lines
    start = np.median(first, axis=1) > 2 * math.log(10)
    check_line(near, median[(median > 0) & ~start], octaves[(median > 0) & ~start])
    check_line(far, median[(median > 0) & start], octaves[(median > 0) & start])
    check_line(rises, -median[median < 0], octaves[median < 0])
    check_line(theory, np.median(predicted, axis=1), octaves)
    check_line(one_percent, [0.01, 0.01])
    ratio = mean_of(measured[3] / predicted[3])
    check_numbers(sentence, f"{np.median(predicted[3]):.2g}", f"{np.median(measured[3]):.2g}")
    three_digits(sentence, ratio.value)


def check_sgd(figure, sentence):
    check_steps(figure, sentence, "SGD", 0.03)


def check_adam(figure, sentence):
    check_steps(figure, sentence, "Adam", 0.001)


DRAWINGS = {
    check_pyramid: lambda: drawings_training.pyramid_figure("alternating", "fan_avg", ratio=3.0, depth=4),
    check_first_loss: lambda: drawings_training.first_loss_figure(gain=1.5, share=0.7, classes=4),
    check_sgd: lambda: drawings_training.first_step_figure(hidden=3, rate=0.03),
    check_adam: lambda: drawings_training.first_step_figure(hidden=3, rate=0.001, optimizer="Adam"),
}


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_lines_and_sentence_are_what_they_say(check):
    check_drawing(check, *DRAWINGS[check]())


def test_the_pyramid_chains_have_the_law_of_real_matrices():
    widths, networks, generator = [12, 30, 8, 20], 4000, torch.Generator().manual_seed(1)
    h = torch.randn(networks, 12, 1, generator=generator, dtype=torch.float64)
    signal, weights, masks = [h.square().mean(dim=(1, 2))], [], []
    for n_in, n_out in itertools.pairwise(widths):
        draws = torch.randn(networks, n_out, n_in, generator=generator, dtype=torch.float64)
        weights.append(draws * math.sqrt(2 / n_out))
        h = torch.relu(weights[-1] @ h)
        masks.append(h > 0)
        signal.append(h.square().mean(dim=(1, 2)))
    error = torch.randn(networks, 20, 1, generator=generator, dtype=torch.float64)
    gradient = [error.square().mean(dim=(1, 2))]
    for weight, mask in zip(weights[::-1], masks[::-1], strict=True):
        error = weight.mT @ (mask * error)
        gradient.insert(0, error.square().mean(dim=(1, 2)))
    chains = pyramid_chains(widths, "fan_out")
    for chain, real in zip(chains, (signal, gradient), strict=True):
        for layer in range(4):
            for power in (0.5, 1):  # mean and, through the root, spread
                z = z_score(chain[:, layer] ** power, real[layer].numpy() ** power)
                assert abs(z) < 4, (layer, power)


@pytest.mark.parametrize("mode", PRODUCT)
@pytest.mark.parametrize(
    ("shape", "ends"), [("narrowing", (1024, 128)), ("widening", (128, 1024)), ("alternating", (128, 128))]
)
def test_fan_in_and_fan_out_move_one_end_only_by_the_ratio_of_the_outer_widths(shape, ends, mode):
    widths = drawings_training.widths_of(shape, 8.0, 12)
    assert (widths[0], widths[-1], widths.max(), widths.min()) == (*ends, 1024, 128)
    *_, upwards, _, downwards = drawings_training.pyramid_figure(shape, mode, 8.0, 12)[0].axes[0].lines
    signal, gradient = upwards.get_ydata()[-1], downwards.get_ydata()[0]
    ratio = ends[0] / ends[1]
    if mode == "fan_avg":
        assert (signal < 0.01 and gradient < 0.01) == (shape == "alternating")
    else:
        expected = (1, 1 / ratio) if mode == "fan_in" else (ratio, 1)
        np.testing.assert_allclose((signal, gradient), expected)


def test_unit_logits_are_standard_normal_over_networks():
    logits = drawings_training.unit_logits()
    compare(
        ("mean of a logit", 0.0, mean_of(logits[:, 0, 0, :].ravel())),
        ("variance of a logit", 1.0, mean_of(logits[:, 3, 2, :].ravel() ** 2)),
    )


def test_the_class_prior_is_best_only_for_a_last_layer_near_zero():
    titles = {
        gain: drawings_training.first_loss_figure(gain, 0.7, 10)[0].axes[0].get_title()
        for gain in (0.01, 1.5, 3.16)
    }
    assert titles[0.01].endswith("1.270, at a bias of 1.00 ln p")
    assert float(titles[1.5].split()[-3]) > 1.2
    assert titles[3.16] != titles[1.5]
    assert not titles[3.16].endswith("beyond")
    title = drawings_training.first_loss_figure(3.16, 0.7, 2)[0].axes[0].get_title()
    assert title.endswith("at a bias of 3.00 ln p or beyond")  # the curve still falls where it ends


def test_balanced_classes_have_no_best_bias():
    for classes in (2, 10):
        title = drawings_training.first_loss_figure(1.0, 1 / classes, classes)[0].axes[0].get_title()
        assert title.endswith("with any multiple of ln p")


def test_the_title_names_the_window_that_it_finds():
    def title(**settings):
        return drawings_training.first_step_figure(**settings)[0].axes[0].get_title()

    assert title(hidden=1).startswith("1 hidden layer: ")
    assert title(hidden=1).endswith("from c = 0.25 to 4")
    assert title(hidden=20).endswith("at c = 1 only")
    assert title(hidden=20, rate=1e-4, optimizer="Adam").startswith("20 hidden layers: ")
    assert title(hidden=4, rate=1e-4).endswith("nowhere") == (first_steps(4, 1e-4, "SGD")[0] < 0.01).all()


EDGES = [
    *(("pyramid", ("narrowing", mode, 16.0, 2)) for mode in PRODUCT),
    ("pyramid", ("widening", "fan_avg", 16.0, 30)),
    ("pyramid", ("alternating", "fan_out", 16.0, 30)),
    ("pyramid", ("alternating", "fan_avg", 1.0, 30)),
    *(("first_loss", (gain, share, k)) for gain in (0.01, 3.2) for share in (0.01, 0.99) for k in (2, 10)),
    *(("first_step", (h, rate, o)) for h in (1, 20) for rate in (1e-4, 10.0) for o in ("SGD", "Adam")),
]


@pytest.mark.parametrize(("name", "settings"), EDGES)
def test_edges_of_the_controls_draw_finite_numbers(name, settings):
    check_finite(*getattr(drawings_training, f"{name}_figure")(*settings))


def test_a_circle_is_hollow_where_the_first_loss_was_twice_that_of_a_guess():
    first = np.median(first_steps(1, 0.1, "SGD")[2], axis=1) / math.log(10)
    assert (first > 2).sum() == 2
    assert first.max() < 3  # so that another limit would be seen
    near, far, *_ = drawings_training.first_step_figure(hidden=1, rate=0.1)[0].axes[0].lines
    assert (near.get_fillstyle(), far.get_fillstyle()) == ("full", "none")
    np.testing.assert_allclose(far.get_xdata(), [1.5, 2])


def test_rises_are_drawn_up_to_a_hundred_times_the_loss():
    rises = drawings_training.first_step_figure(hidden=20, rate=10.0)[0].axes[0].lines[2]
    np.testing.assert_allclose(rises.get_xdata(), np.arange(5) / 2)
    np.testing.assert_allclose(rises.get_ydata(), 100)
