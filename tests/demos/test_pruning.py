"""Pruned weights: the law by another integral, the noise and its pole."""

import math
from functools import cache

import numpy as np
import pytest
from drawing_checks import band_edges, check_line, check_numbers, check_words, two
from matplotlib.collections import LineCollection, PolyCollection
from scipy.stats import norm

from course_utils import network_laws
from course_utils.comparison import compare, mean_of, std_of
from course_utils.demos.pruning import pruned_signals, pruning_figure

SETTINGS = {"removed": "the smallest", "kept": 0.2}
REMOVED = ("the smallest", "at random")
CONTROLS = {"removed": REMOVED, "others": ("as they are", "rescaled"), "kept": (10**-1.7, 1, 35)}
LABELS = ["weights removed", "weights that remain", "share kept (p)"]
Z = np.linspace(-12, 12, 200_001)
DENSITY = norm.pdf(Z) * (Z[1] - Z[0])
signals = cache(pruned_signals)


def check(figure, sentence):
    (ax,), n, layers, cut = figure.axes, 128, np.arange(11), norm.isf(0.1)
    factor, fourth = (Z**k * (abs(Z) > cut) @ DENSITY for k in (2, 4))
    outputs, variance = 3.0, [math.log(1 + 2 / n)]
    for _ in range(10):
        outputs = 2 * (3 + (fourth / factor**2 - 3) * outputs / n)
        variance.append(variance[-1] + math.log(1 + (outputs - 1) / n))
    measured = signals("the smallest", 0.2)
    means, theory, low, high = ax.lines
    check_line(means, measured.mean(axis=0), layers)
    (bars,), (band,) = (
        [c for c in ax.collections if isinstance(c, kind)] for kind in (LineCollection, PolyCollection)
    )
    errors = 2 * measured.std(axis=0, ddof=1) / math.sqrt(len(measured))
    np.testing.assert_allclose([bar[1, 1] for bar in bars.get_segments()], measured.mean(axis=0) + errors)
    np.testing.assert_allclose(band_edges(band, layers), np.percentile(measured, [2.5, 97.5], axis=0))
    check_line(theory, factor**layers, rtol=1e-3)  # the rule smears the cut
    for line, k in ((low, -1.96), (high, 1.96)):
        check_line(
            line, theory.get_ydata() * np.exp(k * np.sqrt(variance) - np.array(variance) / 2), rtol=1e-3
        )
    heading = f"20 % of the weights, 25.6 links a unit: × {factor:.3g} a layer"
    check_words(ax, "layer (l)", "second moment (m)", heading)
    ratio, spread = mean_of(measured[:, -1] / theory.get_ydata()[-1]), std_of(np.log(measured[:, -1]))
    found = 24, 128, *two(ratio), f"{math.sqrt(variance[-1]):.2f}", 95, *two(spread)
    within = np.sum((measured[:, -1] >= 0.1) & (measured[:, -1] <= 10))
    check_numbers(sentence, 10, f"{factor**10:.3g}", *found, within, 10)


@pytest.mark.parametrize("kept", [0.3, 0.07])
def test_random_pruning_keeps_the_share_and_the_kurtosis_is_three_over_it(kept):
    cut, second, kurtosis = network_laws.pruned_normal("at random", kept)
    assert (cut, second) == (0.0, kept)
    assert kurtosis == pytest.approx(3 / kept)
    measured = signals("at random", kept)
    compare(("growth in three layers", kept**3, mean_of(measured[:, 3] / measured[:, 0])))


@pytest.mark.parametrize("removed", REMOVED)
def test_nothing_removed_is_a_he_network(removed):
    assert network_laws.pruned_normal(removed, 1.0) == pytest.approx((0, 1, 3))
    steps = np.diff(network_laws.relu_log_variance(3.0, 10, 128))
    np.testing.assert_allclose(steps, math.log(1 + 5 / 128))


def test_rescaling_divides_by_what_is_left():
    plain, repaired = (
        pruning_figure("at random", 0.25, others)[0].axes[0].lines[0].get_ydata()
        for others in ("as they are", "rescaled")
    )
    np.testing.assert_allclose(plain * 4.0 ** np.arange(11), repaired)


def test_the_noise_has_its_pole_at_six_links():
    for links, passed in ((5.5, True), (6.5, False)):
        _, _, kurtosis = network_laws.pruned_normal("at random", links / 128)
        assert (network_laws.relu_log_variance(kurtosis, 10, 128) is None) == passed
    assert "has passed its pole" in pruning_figure("at random", 0.03, "rescaled")[1]


def test_networks_are_counted_by_the_factor_that_is_shaded():
    logs = np.abs(np.log10(signals("the smallest", 0.4)[:, -1]))
    kept, fewer = (np.sum(logs <= limit) for limit in (1, 0.5))
    assert 0 < fewer < kept < 24
    assert f"{kept} of the networks keep m within a factor of 10" in pruning_figure(kept=0.4)[1]
