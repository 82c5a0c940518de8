"""The first loss: the law against another integral, the losses against a sum by hand."""

import math
from functools import cache

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_samples, check_words, levels, title
from scipy import integrate, stats
from scipy.special import logsumexp

from course_utils.comparison import Row, compare, format_estimate, mean_of
from course_utils.demos.first_loss import first_loss_figure, unit_logits

SETTINGS = {"gain": 1.5, "share": 0.7, "classes": 4}
CONTROLS = {"gain": (0.01, 10**0.5, 51), "share": (0.01, 0.99, 99), "classes": (2, 10, 9)}
LABELS = ["output gain (√n × std)", "share of one class (p)", "classes (K)"]


@cache
def mean_first_loss(gain, p, multiple):
    """Return E ln sum exp(z) - E z_label by E ln S = int (exp(-s) - E exp(-s S)) / s ds, with s = exp(u)."""
    z, step = np.linspace(-9, 9, 721, retstep=True)
    density = stats.norm.pdf(z) * step

    def integrand(u):
        below = [np.exp(-np.exp(u + multiple * np.log(q) + gain * z)) @ density for q in p]
        return math.exp(-math.exp(u)) - math.prod(below)

    value = integrate.quad(integrand, -60, 60, limit=400, points=[-5, 0, 5], epsabs=1e-9)[0]
    return value - multiple * sum(q * math.log(q) for q in p)


@cache
def first_losses(gain, p, multiple):
    logits = unit_logits().numpy()[:, : len(p), :, : len(p)]
    logits = gain * logits + multiple * np.log(p)
    losses = logsumexp(logits, axis=-1) - np.stack([logits[:, k, :, k] for k in range(len(p))], axis=1)
    return losses.mean(axis=2) @ p


def check(figure, sentence):
    (ax,), p, multiples = figure.axes, (0.7, 0.1, 0.1, 0.1), np.arange(61) / 20
    markers, theory, best, *_ = ax.lines
    losses = np.array([first_losses(1.5, p, k / 2) for k in range(7)])
    check_samples(ax, markers, np.arange(7) / 2, losses.T, np.mean)
    expected = np.array([mean_first_loss(1.5, p, b) for b in multiples[::10]])
    np.testing.assert_allclose(theory.get_xdata(), multiples)
    np.testing.assert_allclose(theory.get_ydata()[::10], expected, rtol=2e-6)
    lowest = np.argmin(theory.get_ydata())
    least, entropy = theory.get_ydata()[lowest], -0.7 * math.log(0.7) - 0.3 * math.log(0.1)
    check_line(best, [least], [multiples[lowest]])
    assert levels(ax) == pytest.approx({"ln K": math.log(4), "H(p)": entropy})
    heading = f"Lowest mean first loss {least:.3f}, at a bias of {multiples[lowest]:.2f} ln p"
    check_words(ax, "output bias in multiples of ln p (β)", "loss at step 0", heading)
    rows = (Row("", expected[k], mean_of(losses[k])) for k in (0, 2))
    zero, prior = (format_estimate(row) for row in rows)
    check_numbers(sentence, 100, 0, *zero, *prior, f"{least:.3f}", f"{entropy:.3f}")


def test_unit_logits_are_standard_normal_over_networks():
    logits = unit_logits().numpy()
    compare(
        ("mean of a logit", 0.0, mean_of(logits[:, 0, 0, :])),
        ("variance of a logit", 1.0, mean_of(logits[:, 3, 2, :] ** 2)),
    )


def heading(*settings):
    return title(first_loss_figure(*settings)[0].axes[0])


def test_the_class_prior_is_best_only_for_a_last_layer_near_zero():
    assert heading(0.01, 0.7, 10).endswith("1.270, at a bias of 1.00 ln p")
    assert float(heading(1.5, 0.7, 10).split()[-3]) > 1.2
    assert not heading(3.16, 0.7, 10).endswith("beyond")
    assert heading(3.16, 0.7, 2).endswith("3.00 ln p or beyond")  # the curve still falls where it ends


def test_balanced_classes_have_no_best_bias():
    for classes in (2, 10):
        assert heading(1.0, 1 / classes, classes).endswith("with any multiple of ln p")
