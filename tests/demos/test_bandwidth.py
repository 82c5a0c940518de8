"""A wave at 32 points: shares, look-alikes and the fit, by kernel regression written anew."""

import math

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_words, named

from course_utils.demos.bandwidth import bandwidth_figure

SETTINGS = {"features": "Fourier features", "bandwidth": 10.0, "cycles": 5, "steps": 100}
CONTROLS = {
    "features": ("Fourier features", "one sine layer", "two, SIREN's law", "two, He's law"),
    "bandwidth": (10**-0.3, 10**1.8, 43),
    "cycles": (1, 15, 15),
    "steps": (10, 30, 100, 300, 1000, 3000, 10000),
}
LABELS = ["features", "bandwidth (s), cycles", "cycles of the wave", "steps (t)"]


def normal_shares(k, s=10.0):
    return np.array([(math.erf((j + 0.5) / s / 2**0.5) - math.erf((j - 0.5) / s / 2**0.5)) / 2 for j in k])


def check(figure, sentence):
    left, right = figure.axes
    k, x, alike = np.arange(65), np.arange(1025) / 2048, [27, 37, 59]
    check_line(named(left, "share in the features"), normal_shares(k), k)
    check_line(named(left, "the wave"), normal_shares([5]), [5])
    check_line(named(left, "the same at the samples"), normal_shares(alike), alike)
    check_words(left, "cycles (k)", "share (π)", "What the features hold")
    same = 5 + 32 * np.arange(-5, 6)
    learned = 1 - (1 - 0.5 * normal_shares(same).sum()) ** 100
    part = learned * normal_shares(same) / normal_shares(same).sum()
    fit = np.cos(2 * math.pi * np.outer(x, same)) @ part
    check_line(named(right, "fit"), fit, x)
    check_line(named(right, "wave"), np.cos(10 * math.pi * x), x)
    check_line(named(right, "samples"), np.cos(10 * math.pi * np.arange(17) / 32), np.arange(17) / 32)
    rest = part - (same == 5)
    total = math.sqrt((rest**2).sum())
    check_words(right, "place on the circle (x)", "value", f"RMS error on the circle {total:.2g}")
    check_numbers(sentence, 100, f"{1 - learned:.3g}", f"{learned - part[5]:.3g}", f"{total:.3g}")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "noise between the samples"),
        ({"bandwidth": 1.0}, "mostly blur"),
        ({"bandwidth": 6.3}, "which is small"),
        ({"bandwidth": 6.3, "features": "one sine layer"}, "which is small"),
        ({"bandwidth": 6.3, "features": "two, He's law"}, "noise between the samples"),
        ({"bandwidth": 6.3, "features": "two, SIREN's law"}, "which is small"),
    ],
)
def test_the_error_is_named_by_its_larger_part(settings, said):
    assert said in bandwidth_figure(**settings)[1]


def test_behind_a_second_layer_frequencies_are_sums_of_odd_poisson_many():
    one = bandwidth_figure("one sine layer", 4.0)[0].axes[0].lines[0].get_ydata().copy()
    two = bandwidth_figure("two, SIREN's law", 4.0)[0].axes[0].lines[0].get_ydata().copy()
    assert one[:7] == pytest.approx([1 / (8 * math.sqrt(3))] * 7)
    density, sums, found = np.concatenate([one[:0:-1], one]), np.ones(1), np.zeros(1201)
    for j in range(1, 9):
        sums = np.convolve(sums, density)
        if j % 2:
            wide = np.pad(sums, (1201 - len(sums)) // 2)
            found += wide / math.factorial(j) / math.sinh(1)
    np.testing.assert_allclose(two, found[600:665], atol=1e-6)
    he = bandwidth_figure("two, He's law", 4.0)[0].axes[0].lines[0].get_ydata()
    std = 4 * math.sqrt((4 * math.pi) ** 2 * 3)  # of q = c / 2 = omega**2 frequencies
    assert he[10] == pytest.approx(math.exp(-((10 / std) ** 2) / 2) / std / math.sqrt(2 * math.pi), rel=0.03)
