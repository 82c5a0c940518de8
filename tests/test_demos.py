"""Demos, used as a hand would use them: every control at both ends, reset, errors."""

import math
import re
from functools import cache

import ipywidgets as widgets
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import digamma, polygamma

from course_utils import demos, mean_field, propagation
from course_utils.activations import leaky_relu, linear, tanh

DEMOS = [demos.explosion_demo, demos.fan_demo, demos.tanh_demo, demos.relu_demo]


@cache
def built(make):
    return make()


def ends(control):
    if isinstance(control, widgets.SelectionSlider):
        return control.options[0], control.options[-1]
    if isinstance(control, widgets.FloatLogSlider):
        return control.base**control.min, control.base**control.max
    return control.min, control.max


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_every_control_moves_the_figure(make):
    demo = built(make)
    for name, control in demo.controls.items():
        assert control.description, name
        images = []
        for value in ends(control):
            control.value = value
            images.append(bytes(demo.image.value))
            assert images[-1].startswith(b"\x89PNG")
            assert demo.sentence.value
        assert images[0] != images[1], name


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_reset_brings_back_the_first_picture(make):
    demo = make()
    first = demo.image.value, demo.sentence.value
    for control in demo.controls.values():
        control.value = ends(control)[1]
    assert (demo.image.value, demo.sentence.value) != first
    demo.reset_button.click()
    assert (demo.image.value, demo.sentence.value) == first


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_the_stored_output_is_the_question(make):
    demo = built(make)
    assert repr(demo) == f"Demo: {demo.question}"
    assert demo.question.endswith("?")


def test_an_error_is_shown_and_raised():
    def fragile(n):
        if n > 1:
            raise ZeroDivisionError("no such width")
        return Figure(), "fine"

    slider = widgets.IntSlider(1, min=1, max=2, description="n")
    demo = demos.Demo("What now?", {"n": slider}, fragile)
    with pytest.raises(ZeroDivisionError):
        slider.value = 2
    assert "ZeroDivisionError: no such width" in demo.sentence.value
    slider.value = 1
    assert demo.sentence.value == "fine"


def test_the_first_demo_predicts_the_overflow_layer():
    assert "leaves float32 in layer 29." in demos.explosion_figure(weight_std=1.0, width=512)[1]
    assert "leaves float32 in layer 70." in demos.explosion_figure(weight_std=0.01, width=512)[1]
    assert "it stays at 1" in demos.explosion_figure(weight_std=1 / 16, width=256)[1]
    assert "still within float32" in demos.explosion_figure(weight_std=0.05, width=512)[1]


def test_sentences_carry_the_theory():
    figure, sentence = demos.tanh_figure(gain=1.5)
    assert isinstance(figure, Figure)
    assert f"q* = {mean_field.fixed_point(tanh, 1.5):.4g}" in sentence
    assert f"= {np.sqrt(1.25 / 2):.4f}. RMS" in demos.relu_figure(gain=1.0, negative_slope=0.5)[1]
    assert f"predicted {np.sqrt(301 * polygamma(1, 8)) / 2:.3f}" in demos.fan_figure(width=16, depth=300)[1]


def test_reset_draws_once():
    drawn = []

    def draw(**values):
        drawn.append(values)
        return Figure(), "fine"

    controls = {name: widgets.IntSlider(1, min=1, max=9, description=name) for name in ("n", "depth")}
    demo = demos.Demo("How often?", controls, draw)
    for control in controls.values():
        control.value = 7
    drawn.clear()
    demo.reset()
    assert drawn == [{"n": 1, "depth": 1}]


def check_numbers(sentence, *expected):
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?", sentence)
    assert [text for text in expected if text not in found] == []


def check_line(line, y, x=None):
    np.testing.assert_allclose(line.get_ydata(), y, rtol=1e-6, atol=1e-12)
    if x is not None:
        np.testing.assert_allclose(line.get_xdata(), x, rtol=1e-6)


def median_rms(count, *arguments):
    return np.median(propagation.norm_chain(count, *arguments, np.random.default_rng(0)).rms, axis=0)


def check_explosion(figure, sentence):
    layers, factor = np.arange(41), math.sqrt(64) * 0.02
    markers, theory, largest, smallest = figure.axes[0].lines
    rms = propagation.norm_chain(20, 64, 40, linear, factor, np.random.default_rng(0)).rms
    check_line(markers, np.median(np.log10(rms), axis=0)[::5], layers[::5])
    check_line(theory, layers * np.log10(factor), layers)
    check_line(largest, [np.log10(3.4028234664e38)] * 2)
    check_line(smallest, [np.log10(2.0**-149)] * 2)
    check_numbers(sentence, "0.16", "40", f"{40 * np.log10(0.16):.1f}")


def check_fan(figure, sentence):
    growth, noise = digamma(16) - math.log(16), polygamma(1, 16)  # of one factor chi2_n / n, n = 32
    factors = np.arange(1, 31)
    rms = propagation.norm_chain(1000, 32, 29, linear, 1.0, np.random.default_rng(0)).rms
    *single, middle, low, high = figure.axes[0].lines
    for line, network in zip(single, rms[:5], strict=True):
        check_line(line, network)
    for line, k in ((low, -1.96), (middle, 0), (high, 1.96)):
        check_line(line, np.exp((growth * factors + k * np.sqrt(noise * factors)) / 2))
    std = math.sqrt(30 * noise) / 2
    measured = np.log(rms[:, -1]).std(ddof=1)
    median = f"{math.exp(15 * growth):.2g}"
    check_numbers(sentence, "29", f"{std:.3f}", f"{measured:.3f}", f"{math.exp(std):.2f}", median)


def tanh_layer(q, gain):
    """Return the map of q and chi_1 by the trapezoidal rule."""
    z = np.linspace(-12, 12, 4001)
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    h = np.tanh(np.sqrt(np.reshape(q, (-1, 1))) * z)
    return gain**2 * h**2 @ density, gain**2 * (1 - h**2) ** 2 @ density


def check_tanh(figure, sentence):
    gain, depth, q = 1.4, 20, [1.4**2]
    for _ in range(400):
        q.append(tanh_layer(q[-1], gain)[0][0])
    diagonal, function, stairs = figure.axes[0].lines
    check_line(diagonal, diagonal.get_xdata())
    check_line(function, tanh_layer(function.get_xdata(), gain)[0])
    np.testing.assert_allclose(stairs.get_ydata()[1::2], q[1:31], rtol=1e-6)
    markers, theory = figure.axes[1].lines
    rms = median_rms(20, 256, depth, tanh, gain)
    predicted = np.append(1.0, np.sqrt(q[1 : depth + 1]) / gain)
    check_line(markers, rms[markers.get_xdata()], np.arange(len(rms))[:: markers.get_xdata()[1]])
    check_line(theory, predicted, np.arange(depth + 1))
    slope = math.sqrt(tanh_layer(q[-1], gain)[1][0])
    check_numbers(sentence, "20", *(f"{x:.4g}" for x in (predicted[-1], rms[-1], q[-1], slope)))


def check_relu(figure, sentence):
    factor, layers = 1.2 * math.sqrt((1 + 0.3**2) / 2), np.arange(31)
    rms = median_rms(20, 64, 30, leaky_relu(0.3), 1.2)
    markers, theory = figure.axes[0].lines
    check_line(markers, rms[markers.get_xdata()], layers[:: markers.get_xdata()[1]])
    check_line(theory, factor**layers, layers)
    check_numbers(sentence, "30", f"{factor:.4f}", f"{factor**30:.3g}", f"{rms[-1]:.3g}")


DRAWINGS = {
    check_explosion: lambda: demos.explosion_figure(weight_std=0.02, width=64, depth=40),
    check_fan: lambda: demos.fan_figure(width=32, depth=29),
    check_tanh: lambda: demos.tanh_figure(gain=1.4, depth=20),
    check_relu: lambda: demos.relu_figure(gain=1.2, negative_slope=0.3, width=64, depth=30),
}


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_lines_and_sentence_are_what_they_say(check):
    check(*DRAWINGS[check]())


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_any_line_off_by_1_percent_is_caught(check):
    figure, sentence = DRAWINGS[check]()
    for line in (line for ax in figure.axes for line in ax.lines):
        right = np.array(line.get_ydata())
        line.set_ydata(1.01 * right)
        with pytest.raises(AssertionError):
            check(figure, sentence)
        line.set_ydata(right)


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_a_sentence_without_its_numbers_is_caught(check):
    figure, sentence = DRAWINGS[check]()
    with pytest.raises(AssertionError):
        check(figure, re.sub(r"\d\b", "", sentence))


@pytest.mark.parametrize(("weight_std", "width", "limit"), [(0.4, 64, 2.0**128), (0.05, 16, 2.0**-149)])
def test_the_overflow_layer_is_the_first_beyond_float32(weight_std, width, limit):
    factor = weight_std * math.sqrt(width)
    layer = next(i for i in range(1, 200) if (factor**i > limit) == (factor > 1))
    sentence = demos.explosion_figure(weight_std=weight_std, width=width, depth=100)[1]
    assert f"leaves float32 in layer {layer}." in sentence
