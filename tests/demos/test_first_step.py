"""The first step: losses, gradients and the prediction against backpropagation by hand."""

import math
from functools import cache

import numpy as np
import pytest
from drawing_checks import (
    band_edges,
    check_drawing,
    check_line,
    check_numbers,
    check_words,
    levels,
    named,
    title,
)
from scipy.special import logsumexp

from course_utils import data
from course_utils.comparison import Row, format_estimate, mean_of
from course_utils.demos.demo import he_networks
from course_utils.demos.first_step import first_step_figure

SETTINGS = {"hidden": 3, "rate": 0.03}
CONTROLS = {"hidden": (1, 20, 20), "rate": (1e-4, 10, 21), "optimizer": ("SGD", "Adam")}
LABELS = ["hidden layers (H)", "learning rate (η)", "optimizer"]


def digits_batch():
    images = data.digits()
    index = [i for k in range(10) for i in np.flatnonzero(images.train_labels == k)[:2]]
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


@cache
def first_steps(hidden, rate, optimizer):
    """Return measured and predicted shares, each (factors, networks), and the first losses."""
    he = [[w[i].detach().numpy() for w in he_networks(6, [32] * hidden).weights] for i in range(6)]
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


def check_steps(figure, sentence, rate, optimizer):
    (ax,), (measured, predicted, first) = figure.axes, first_steps(3, rate, optimizer)
    octaves, median = np.arange(9) / 2 - 2, np.median(measured, axis=1)
    near, far, rises, theory, _ = ax.lines
    names = "loss falls", "from above 2 ln 10", "loss rises by as much (100: or more)"
    assert (near, far, rises) == tuple(named(ax, name) for name in names)
    start = np.median(first, axis=1) > 2 * math.log(10)
    for line, where, sign in ((near, ~start, 1), (far, start, 1), (rises, True, -1)):
        shown = (sign * median > 0) & where
        check_line(line, sign * median[shown], octaves[shown], rtol=1e-5)
    all_fall = (measured > 0).all(axis=1)
    edges = band_edges(ax.collections[0], octaves[all_fall])
    np.testing.assert_allclose(edges, [f(measured[all_fall], axis=1) for f in (np.min, np.max)], rtol=1e-5)
    check_line(theory, np.median(predicted, axis=1), octaves)
    assert levels(ax) == {"1 %": 0.01}
    good = 2 ** octaves[median >= 0.01]
    window = f"from c = {good[0]:.2g} to {good[-1]:.2g}"
    heading = f"3 hidden layers: one step removes 1 % or more {window}"
    check_words(ax, "He's weights times (c)", "share of the loss removed", heading)
    ratio = format_estimate(Row("", 1.0, mean_of(measured[3] / predicted[3])))
    shares = (f"{np.median(x[3]):.2g}" for x in (predicted, measured))
    check_numbers(sentence, "0.71", *shares, 6, *ratio)


def check(figure, sentence):
    check_steps(figure, sentence, 0.03, "SGD")


def test_adam_takes_its_own_step():
    figure = first_step_figure(hidden=3, rate=0.001, optimizer="Adam")
    check_drawing(lambda *drawn: check_steps(*drawn, 0.001, "Adam"), *figure)


def heading(**settings):
    return title(first_step_figure(**settings)[0].axes[0])


def test_the_title_names_the_window_that_it_finds():
    assert heading(hidden=1).startswith("1 hidden layer: ")
    assert heading(hidden=20, rate=1e-4, optimizer="Adam").startswith("20 hidden layers: ")
    for settings in ((1, 0.1), (20, 0.1), (4, 1e-4)):
        median = np.median(first_steps(*settings, "SGD")[0], axis=1)
        good = [f"{c:.2g}" for c in 2.0 ** (np.arange(9) / 2 - 2)[median >= 0.01]]
        words = "nowhere" if not good else f"at c = {good[0]} only"
        words = f"from c = {good[0]} to {good[-1]}" if len(good) > 1 else words
        assert heading(hidden=settings[0], rate=settings[1]).endswith(words)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(("hidden", "rate", "words"), [(20, 1e-4, ""), (1, 10.0, "the loss rises in 6 of 6")])
def test_the_sentence_says_what_cannot_be_compared(hidden, rate, optimizer, words):
    assert words in first_step_figure(hidden, rate, optimizer)[1]


def test_a_circle_is_hollow_where_the_first_loss_was_twice_that_of_a_guess():
    first = np.median(first_steps(1, 0.1, "SGD")[2], axis=1) / math.log(10)
    assert 0 < (first > 2).sum() < (first > 1.5).sum() < 9  # so that another limit would be seen
    far = first_step_figure(hidden=1, rate=0.1)[0].axes[0].lines[1]
    np.testing.assert_allclose(far.get_xdata(), (np.arange(9) / 2 - 2)[first > 2])


def test_rises_are_drawn_up_to_a_hundred_times_the_loss():
    rises = first_step_figure(hidden=20, rate=10.0)[0].axes[0].lines[2]
    np.testing.assert_allclose(rises.get_xdata(), np.arange(5) / 2)
    np.testing.assert_allclose(rises.get_ydata(), 100)
