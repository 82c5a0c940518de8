"""Attention by the size of its logits: the row that is drawn, the curve, and the numbers."""

import math
from functools import cache

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_samples, check_words, levels, title
from scipy import special, stats

from course_utils.comparison import Row, format_estimate, mean_of
from course_utils.demos import demo
from course_utils.demos.shares import shares_figure

SETTINGS = {"std": 1.5, "tokens": 16}
CONTROLS = {"std": (0.1, 10, 41), "tokens": (4, 8, 16, 32, 64)}
LABELS = ["std of the logits (σ)", "tokens (T)"]


@cache
def expected_squares(std, tokens):
    """Return T E p_1^2 as an integral over S = exp(u), by nodes of their own."""
    z, u = np.linspace(-8.5, 8.5, 501), np.linspace(-14 - 8.5 * std, 5 + 8.5 * std, 901)
    weights = stats.norm.pdf(z) * (z[1] - z[0])
    decay = np.exp(-np.exp(u[:, None] + std * z))
    inside = np.exp(2 * u) * (decay @ (weights * np.exp(2 * std * z))) * (decay @ weights) ** (tokens - 1)
    return tokens * np.trapezoid(inside, u)


@cache
def expected_entropy(std, tokens):
    """Return E H = ln T + int (1 - P) dv / 2 - v (1 - P)."""
    v = np.linspace(1e-6, std, 101) ** 2
    differs = [1 - expected_squares(math.sqrt(x), tokens) for x in v]
    return math.log(tokens) + np.trapezoid(differs, v) / 2 - v[-1] * differs[-1]


def drawn_shares(std, tokens):
    return special.softmax(std * demo.normals(200, 64)[:, :tokens], axis=1)


def check(figure, sentence):
    row, curve = figure.axes
    p, expected = drawn_shares(1.5, 16), expected_squares(1.5, 16)
    shares, _ = row.lines
    check_line(shares, p[0], np.arange(1, 17), rtol=1e-5)
    assert levels(row) == pytest.approx({"1/T": 1 / 16})
    check_words(row, "token (j)", "share (p)", f"One drawn row: the largest share is {p[0].max():.2f}")
    markers, theory, present, _ = curve.lines
    stds = np.geomspace(0.1, 10, 41)
    drawn = np.array([(drawn_shares(std, 16) ** 2).sum(axis=1) for std in stds[::5]])
    check_samples(curve, markers, stds[::5], drawn.T, np.mean)
    np.testing.assert_allclose(theory.get_xdata(), stds)
    check_line(theory, [expected_squares(std, 16) for std in stds], rtol=1e-3)
    check_line(present, [expected], [1.5], rtol=1e-4)
    assert levels(curve) == {"two tokens": 0.5}
    heading = f"Predicted: {1 / expected:.1f} of 16 tokens share it"
    check_words(curve, "std of the logits (σ)", "sum of squared shares (Σp²)", heading)
    squares, entropies = (p**2).sum(axis=1), special.entr(p).sum(axis=1)
    rows = Row("", expected, mean_of(squares)), Row("", expected_entropy(1.5, 16), mean_of(entropies))
    check_numbers(sentence, 200, 16, *format_estimate(rows[0]), *format_estimate(rows[1]), "2.77")
    assert sentence.endswith("So more than two tokens share it.")


@pytest.mark.parametrize(("std", "tokens", "said"), [(2.0, 8, "more"), (2.6, 8, "fewer"), (4.0, 64, "more")])
def test_which_side_of_two_tokens(std, tokens, said):
    figure, sentence = shares_figure(std, tokens)
    assert sentence.endswith(f"So {said} than two tokens share it.")
    assert (float(title(figure.axes[1]).split()[1]) >= 2) is (said == "more")
