"""The explosion: lines and numbers against formulas written anew."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, levels, named

from course_utils import propagation
from course_utils.activations import linear
from course_utils.demos.explosion import explosion_figure

SETTINGS = {"weight_std": 0.02, "width": 64}
CONTROLS = {"weight_std": (10**-2.5, 10**0.5, 121), "width": (16, 64, 256, 512, 1024)}
LABELS = ["weight std (σ)", "width (n)"]


def check(figure, sentence):
    (ax,), layers = figure.axes, np.arange(101)
    draws = {"count": 50, "generator": torch.Generator().manual_seed(0)}
    logs = np.log10(propagation.norm_chain(linear, 0.16, 100, 64, **draws).rms)
    markers, theory, *_ = ax.lines
    assert markers is named(ax, "median of 50 networks, shaded: 95 %")
    assert theory is named(ax, "predicted, l · log10(√n σ)")
    check_samples(ax, markers, layers, logs)
    check_line(theory, layers * math.log10(0.16), layers)
    limits = {"largest float32": math.log10(3.4028234664e38), "smallest float32": math.log10(2.0**-149)}
    assert levels(ax) == pytest.approx(limits)
    check_words(ax, "layer (l)", "log10 of RMS", "Predicted: each layer multiplies the RMS by 0.16")
    low, median, high = (f"{x:.1f}" for x in np.percentile(logs[:, -1], [2.5, 50, 97.5]))
    last = math.ceil(math.log(2.0**-149, 0.16))
    predicted = "0.16", 100, 10, f"{100 * math.log10(0.16):.1f}", last
    check_numbers(sentence, *predicted, 50, 10, median, 95, 10, low, 10, high)


def test_the_demo_predicts_the_overflow_layer():
    assert "leaves float32 in layer 29." in explosion_figure(weight_std=1.0, width=512)[1]
    assert "leaves float32 in layer 70." in explosion_figure(weight_std=0.01, width=512)[1]
    assert "it stays at 1" in explosion_figure(weight_std=1 / 16, width=256)[1]
    assert "still within float32" in explosion_figure(weight_std=0.05, width=512)[1]


def test_no_zero_has_a_minus_sign():
    sentence = explosion_figure(weight_std=0.999 / 32, width=1024)[1]
    assert "makes 10^0.0;" in sentence
    assert "10^-0.0" not in sentence


@pytest.mark.parametrize(("weight_std", "width", "limit"), [(0.4, 64, 2.0**128), (0.05, 16, 2.0**-149)])
def test_the_overflow_layer_is_the_first_beyond_float32(weight_std, width, limit):
    factor = weight_std * math.sqrt(width)
    layer = next(i for i in range(1, 200) if (factor**i > limit) == (factor > 1))
    sentence = explosion_figure(weight_std=weight_std, width=width)[1]
    assert f"leaves float32 in layer {layer}." in sentence
