"""Demos, used as a hand would use them: every control at both ends, reset, errors."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import ipywidgets as widgets
import nbformat
import numpy as np
import pytest
from drawing_checks import check_finite

from course_utils import demos, plotting

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
DEMOS = [make for name, make in vars(demos).items() if name.endswith("_demo")]


@cache
def built(make):
    return make()


def settings(control):
    """Return every value that a hand can choose, in order."""
    if isinstance(control, widgets.Checkbox):
        return [False, True]
    if isinstance(control, widgets.FloatLogSlider):
        steps = round((control.max - control.min) / control.step)
        return [control.base ** (control.min + k * control.step) for k in range(steps + 1)]
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    steps = round((control.max - control.min) / control.step)
    values = [control.min + k * control.step for k in range(steps + 1)]
    assert values[-1] == pytest.approx(control.max), "the last step must end at the maximum"
    return [*values[:-1], control.max]


def ends(control):
    values = settings(control)
    return values[0], values[-1]


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_every_control_moves_the_figure(make):
    demo = built(make)
    for name, control in demo.controls.items():
        assert control.description, name
        images = []
        for value in ends(control):
            control.value = value
            images.append(bytes(demo.image.value))
            assert images[-1].startswith(b"\xff\xd8")
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


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_any_order_of_clicks_shows_what_a_new_figure_would(make):
    demo, rng = built(make), np.random.default_rng(0)
    demo.reset()
    first = bytes(demo.image.value)
    for _ in range(25):
        control = rng.choice(list(demo.controls.values()))
        values = settings(control)
        control.value = values[rng.integers(len(values))]
        figure, sentence = demo._draw(**{name: control.value for name, control in demo.controls.items()})
        check_finite(figure, sentence)
        assert bytes(demo.image.value) == plotting.to_jpeg(figure)
        assert demo.sentence.value == sentence
    demo.reset_button.click()
    assert bytes(demo.image.value) == first


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_controls_are_labelled_and_start_within_their_range(make):
    controls = built(make).controls.values()
    labels = [control.description for control in controls]
    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 28, "longer labels are cut off"
    built(make).reset()
    for control in controls:
        assert any(
            control.value == (pytest.approx(v) if isinstance(v, float) else v) for v in settings(control)
        )


def test_every_notebook_has_its_demo_once():
    cells = Counter()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        sources = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        cells[path.name[:2]] += sum(bool(re.fullmatch(r"demos\.\w+_demo\(\)", source)) for source in sources)
    assert cells == Counter({f"{k:02}": 1 for k in range(1, 16)})


def test_an_error_is_shown_and_raised():
    def fragile(n):
        if n > 1:
            raise ZeroDivisionError("no such width")
        return plotting.new_figure()[0], "fine"

    slider = widgets.IntSlider(1, min=1, max=2, description="n")
    demo = demos.Demo("What now?", {"n": slider}, fragile)
    with pytest.raises(ZeroDivisionError):
        slider.value = 2
    assert "ZeroDivisionError: no such width" in demo.sentence.value
    slider.value = 1
    assert demo.sentence.value == "fine"


def test_two_threads_do_not_draw_at_once():
    inside = []

    def draw(n):
        inside.append(n)
        time.sleep(0.02)
        assert inside == [n]
        return plotting.new_figure()[0], f"n = {inside.pop()}"

    slider = widgets.IntSlider(1, min=1, max=9, description="n")
    demo = demos.Demo("Who is first?", {"n": slider}, draw)
    with ThreadPoolExecutor(2) as pool:
        moves = pool.map(partial(setattr, slider, "value"), [2, 3, 4, 5])
        resets = pool.map(lambda _: demo.reset(), range(4))
        assert [*moves, *resets] == [None] * 8  # and no exception
    assert demo.sentence.value == f"n = {slider.value}"


def test_reset_draws_once():
    drawn = []

    def draw(**values):
        drawn.append(values)
        return plotting.new_figure()[0], "fine"

    controls = {name: widgets.IntSlider(1, min=1, max=9, description=name) for name in ("n", "depth")}
    demo = demos.Demo("How often?", controls, draw)
    for control in controls.values():
        control.value = 7
    drawn.clear()
    demo.reset()
    assert drawn == [{"n": 1, "depth": 1}]


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_nobody_can_type_where_typing_does_nothing(make):
    for control in built(make).controls.values():
        assert isinstance(control, widgets.SelectionSlider) == ("course-no-typing" in control._dom_classes)


@pytest.mark.parametrize("make", DEMOS, ids=lambda f: f.__name__)
def test_labels_fit_into_their_column(make):
    assert all(len(control.description) <= 22 for control in built(make).controls.values())
