"""Demos, used as a hand would use them: every control at both ends, reset, errors."""

import ipywidgets as widgets
import numpy as np
import pytest
from matplotlib.figure import Figure

from course_utils import demos, mean_field
from course_utils.activations import tanh

DEMOS = [demos.explosion_demo, demos.fan_demo, demos.tanh_demo, demos.relu_demo]


def ends(control):
    if isinstance(control, widgets.SelectionSlider):
        return control.options[0], control.options[-1]
    if isinstance(control, widgets.FloatLogSlider):
        return control.base**control.min, control.base**control.max
    return control.min, control.max


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_every_control_moves_the_figure(make):
    demo = make()
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
    demo = make()
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
    assert "√(2/(1 + a²)) = 1.2649" in demos.relu_figure(gain=1.0, negative_slope=0.5)[1]
    assert f"√(L/2n) = {np.sqrt(300 / 32 + 1 / 32):.3f}" in demos.fan_figure(width=16, depth=300)[1]
