"""The style sheet takes its colours from the figures."""

import re
from pathlib import Path

import course_utils
from course_utils import plotting
from course_utils.style import style_sheet

CSS = (Path(course_utils.__file__).parent / "style.css").read_text(encoding="utf-8")


def test_the_colours_of_the_sheet_are_those_of_the_figures():
    sheet = style_sheet().value
    assert f"--course-blue: {plotting.BLUE};" in sheet
    assert f"--course-orange: {plotting.ORANGE};" in sheet


def test_the_least_fonts_are_smaller_than_the_full_ones():
    size = {name: int(value) for name, value in re.findall(r"--course-([a-z-]+): (\d+);", CSS)}
    assert 0 < size["least-text"] < size["text"] < size["page-height"] < size["page-width"]
    assert 0 < size["least-code"] < size["code"]


def test_the_sheet_itself_takes_no_place():
    assert style_sheet().layout.display == "none"


def test_every_colour_that_the_sheet_uses_is_given():
    used = set(re.findall(r"var\((--course-(?:blue|orange|green|pink|grey))\)", CSS))
    assert used
    assert all(f"{name}:" in style_sheet().value for name in used)


def test_the_classes_of_the_sheet_are_those_of_the_widgets():
    package = Path(course_utils.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    extension = {"course-beside", "course-alone"}  # a cell's, of the lab extension
    assert set(re.findall(r"\.(course-[\w-]+)", CSS)) - extension == set(
        re.findall(r'"(course-[\w-]+)"', code)
    )
