"""The memory of one time scale and of many: lines, points and numbers."""

import math

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_words, named
from scipy.special import exp1

from course_utils.demos.memory import memory_figure

SETTINGS = {"scale": 20.0, "spread": 2.0, "law": "log-uniform", "horizon": 30}
CONTROLS = {
    "scale": (10**0.5, 1000, 51),
    "spread": (0.5, 4, 15),
    "law": ("log-uniform", "uniform"),
    "horizon": (10, 30, 100, 300, 1000),
}
LABELS = ["middle scale (τ)", "decades of scales", "law of the scales", "lag (t)"]


def check(figure, sentence):
    (ax,), t = figure.axes, np.geomspace(1, 10_000, 200)
    many, one, points = ax.lines
    assert many == named(ax, "many time scales")
    assert (one, points) == (named(ax, "one time scale"), named(ax, "at the lag"))
    check_line(many, (exp1(t / 200) - exp1(t / 2)) / math.log(100), t)
    check_line(one, np.exp(-t / 20), t)
    left, alone = (exp1(30 / 200) - exp1(30 / 2)) / math.log(100), math.exp(-1.5)
    check_line(points, [left, alone], [30, 30])
    words = f"At lag 30 many scales keep {left:.3g}, one scale keeps {alone:.3g}"
    check_words(ax, "lag in steps (t)", "share of the state left", words)
    check_numbers(sentence, 2, 200, 30, f"{left:.3g}", 20, f"{alone:.3g}")


@pytest.mark.parametrize("law", ["log-uniform", "uniform"])
def test_far_beyond_one_time_scale_only_a_mixture_remembers(law):
    _, sentence = memory_figure(10.0, 4.0, law, 1000)
    assert "10^-43.4 would be left" in sentence
    assert "keeps 0." in sentence
