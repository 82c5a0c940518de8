"""Demos, used as a hand would use them: every control at both ends, reset, errors."""

import importlib.util
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import ipywidgets as widgets
import nbformat
import pytest
import torch
from drawing_checks import check_drawing, check_finite

from course_utils import data, demos
from course_utils.comparison import mean_of
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, balanced_digits, he_networks, integers, power_of_ten

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
each = pytest.mark.parametrize("name", demos.NAMES)


@cache
def built(name):
    return getattr(demos, f"{name}_demo")()


def draw(name, **settings):
    return getattr(demos, f"{name}_figure")(**settings)


@cache
def checks(name):
    """Return the test module of a demo: its `check`, `SETTINGS`, `CONTROLS` and their `LABELS`."""
    spec = importlib.util.spec_from_file_location(f"test_{name}", Path(__file__).with_name(f"test_{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(control):
    """Return every value that a hand can choose, in order."""
    if hasattr(control, "options"):
        return list(control.options)
    steps = round((control.max - control.min) / control.step)
    values = [control.min + k * control.step for k in range(steps + 1)]
    assert values[-1] == pytest.approx(control.max), "the last step must end at the maximum"
    if isinstance(control, widgets.FloatLogSlider):
        return [control.base**value for value in values]
    return [*values[:-1], control.max]


@each
def test_lines_names_and_sentence_are_what_they_say(name):
    module = checks(name)
    check_drawing(module.check, *draw(name, **module.SETTINGS))


@each
def test_every_control_moves_the_picture_to_what_a_new_figure_shows(name):
    demo = built(name)
    demo.reset()
    first = bytes(demo.image.value), demo.sentence.value
    assert first[1] == draw(name)[1]
    for control in demo.controls.values():
        values, images = settings(control), []
        for value in (values[0], values[-1]):
            control.value = value
            figure, sentence = draw(name, **{key: c.value for key, c in demo.controls.items()})
            check_finite(figure, sentence)
            images.append(canvas.draw_jpeg(figure))
            assert (bytes(demo.image.value), demo.sentence.value) == (images[-1], sentence)
        assert images[0] != images[1]
        assert images[0].startswith(b"\xff\xd8")
    assert (bytes(demo.image.value), demo.sentence.value) != first
    demo.reset_button.click()
    assert (bytes(demo.image.value), demo.sentence.value) == first


@each
def test_controls_have_these_settings(name):
    for key, control in built(name).controls.items():
        values, expected = settings(control), checks(name).CONTROLS[key]
        if isinstance(expected[0], str) or isinstance(control, widgets.SelectionSlider):
            assert values == list(expected)
        else:  # lowest, highest, and how many
            assert (values[0], values[-1], len(values)) == pytest.approx(expected)


@each
def test_controls_are_labelled_and_start_within_their_range(name):
    demo = built(name)
    demo.reset()
    labels = [control.description for control in demo.controls.values()]
    assert all(0 < len(label) <= 22 for label in labels), "longer labels do not fit into their column"
    assert labels == checks(name).LABELS
    for control in demo.controls.values():
        exact = isinstance(control.value, str)
        assert any(control.value == (v if exact else pytest.approx(v)) for v in settings(control))
        # Nobody can type where typing does nothing.
        assert isinstance(control, widgets.SelectionSlider) == ("course-no-typing" in control._dom_classes)


@each
def test_an_unknown_name_is_refused(name):
    for key, control in built(name).controls.items():
        if isinstance(control, widgets.Dropdown):
            with pytest.raises(ValueError, match=re.escape(control.options[0])):
                draw(name, **{key: "unheard of"})


@each
def test_the_stored_output_is_the_question(name):
    assert repr(built(name)) == f"Demo: {built(name).question}"
    assert built(name).question.endswith("?")


def test_every_demo_has_its_notebook_and_no_notebook_two():
    found = Counter()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        sources = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        names = [m[1] for source in sources if (m := re.fullmatch(r"demos\.(\w+)_demo\(\)", source))]
        assert len(names) <= 1, path.name
        found.update(names)
    assert found == Counter(demos.NAMES)


def test_demos_are_found_by_name_and_loaded_when_asked_for():
    assert {f"{name}_{kind}" for name in demos.NAMES for kind in ("demo", "figure")} == set(dir(demos))
    for name in ("canvas_demo", "tanh_picture", "unheard_figure"):
        with pytest.raises(AttributeError, match="tanh_demo"):
            getattr(demos, name)
    code = "import sys; from course_utils import demos; print(*{'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


@pytest.mark.parametrize(
    ("log10", "words"), [(0, "1"), (2.99, "977"), (3, "10^3.0"), (-2.99, "0.00102"), (-3, "10^-3.0")]
)
def test_powers_of_ten_have_three_digits_or_an_exponent(log10, words):
    assert power_of_ten(log10) == words


def test_the_digits_of_the_demos_are_the_first_of_each_class():
    inputs, labels = balanced_digits(3)
    images = data.digits()
    assert labels.tolist() == [k for k in range(10) for _ in range(3)]
    for k in range(10):
        first = images.train_inputs[images.train_labels == k][:3]
        assert torch.equal(inputs[3 * k : 3 * k + 3], first.double())


def test_the_networks_of_the_demos_have_hes_law_and_lecuns_in_the_last_layer():
    for weight, variance in zip(he_networks(20, [64, 64]).weights, (2, 2, 1), strict=True):
        moments = mean_of(weight.detach().square().mean(dim=(1, 2)).numpy() * 64)
        assert abs(moments.value - variance) < 4 * moments.standard_error


def slide(draw, *names):
    """Return a demo with one slider for each of `names`."""
    return Demo("What now?", draw, **{name: integers(name, 1, 9, 1) for name in names})


def test_an_error_is_shown_and_raised():
    def fragile(n=1):
        if n > 1:
            raise ZeroDivisionError("no such <width>")
        return canvas.new_figure()[0], "fine"

    demo = slide(fragile, "n")
    with pytest.raises(ZeroDivisionError):
        demo.controls["n"].value = 2
    assert "ZeroDivisionError: no such &lt;width&gt;" in demo.sentence.value
    demo.controls["n"].value = 1
    assert demo.sentence.value == "fine"


def test_two_threads_do_not_draw_at_once():
    inside = []

    def draw(n=1):
        inside.append(n)
        time.sleep(0.02)
        assert inside == [n]
        return canvas.new_figure()[0], f"n = {inside.pop()}"

    demo = slide(draw, "n")
    with ThreadPoolExecutor(2) as pool:
        moves = pool.map(partial(setattr, demo.controls["n"], "value"), [2, 3, 4, 5])
        resets = pool.map(lambda _: demo.reset(), range(4))
        assert [*moves, *resets] == [None] * 8  # and no exception
    assert demo.sentence.value == f"n = {demo.controls['n'].value}"


def test_reset_draws_once():
    drawn = []

    def draw(n=1, depth=2):
        drawn.append((n, depth))
        return canvas.new_figure()[0], "fine"

    demo = slide(draw, "n", "depth")
    assert drawn == [(1, 2)], "a demo starts at its figure's defaults"
    for control in demo.controls.values():
        control.value = 7
    drawn.clear()
    demo.reset()
    assert drawn == [(1, 2)]
