"""Every comparison would catch an error of 20 %, each section one of 5 %, or its text says which."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from resolution import NOTEBOOKS, STORED, report, resolution, sections

from course_utils.comparison import Z_LIMIT, Estimate, compare, refute

EACH, BEST = 0.2, 0.05


def too_coarse(heading, section):
    """Return what is wrong with a section's comparisons, "" for nothing."""
    values = [row.resolution for row in section.rows]
    if section.said:  # at worst this much, and not far less
        return "" if max(section.said) / 2 < max(values) <= max(section.said) else f"{heading}: {max(values)}"
    best = EACH if heading == "Where it breaks" else BEST  # what breaks there is wrong by more
    return "" if max(values) <= EACH and min(values) <= best else f"{heading}: {min(values)} to {max(values)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_comparisons_would_catch_what_the_course_promises(path):
    found = sections(nbformat.read(path, as_version=4).cells).items()
    assert list(filter(None, (too_coarse(heading, section) for heading, section in found))) == []


def test_the_report_is_as_stored():
    assert report() == STORED.read_text(encoding="utf-8"), "run `make resolution`, and read the difference"


@pytest.mark.parametrize("quantity", ["RMS", "std of ln m"])
def test_a_row_catches_an_error_of_its_resolution_and_none_below(quantity):
    """Planted: predictions that are wrong by a little more, and by a little less."""
    right, error = 3.0, 0.02
    caught = resolution(quantity, right, error)
    assert caught == pytest.approx(Z_LIMIT * error / right)
    compare((quantity, right, Estimate(right * (1 + 0.99 * caught), error)))
    with pytest.raises(AssertionError):
        compare((quantity, right, Estimate(right * (1 + 1.01 * caught), error)))


@pytest.mark.parametrize(
    ("quantity", "predicted", "error", "caught"),
    [("E ln m", -0.1, 0.01, 0.04), ("E ln m", -40.0, 0.1, 0.01), ("log10 of m", 0.1, 0.01, 0.0921)],
)
def test_in_a_logarithm_a_factor_or_a_rate_is_caught(quantity, predicted, error, caught):
    assert resolution(quantity, predicted, error) == pytest.approx(caught, rel=1e-3)


def notebook(table, text=""):
    cell = new_code_cell(outputs=[new_output("display_data", {"text/markdown": table._repr_markdown_()})])
    return [new_markdown_cell(f"## ● Measure\n\n{text}"), cell]


@pytest.mark.parametrize(
    ("error", "text", "fine"),
    [
        (0.0124, "", True),
        (0.0126, "", False),
        (0.0126, "It would catch an error of 6 %.", True),
        (0.0126, "It would catch an error of 5 %.", False),
        (0.0126, "It would catch an error of 20 %.", False),
    ],
)
def test_planted_comparisons_are_told_apart(error, text, fine):
    table = compare(("m", 1.0, Estimate(1.0, error)))
    ((heading, section),) = sections(notebook(table, text)).items()
    assert (too_coarse(heading, section) == "") == fine


def test_an_exact_row_would_catch_any_error():
    table = compare(("m", 1.0, Estimate(1.0, 0.0)))
    assert sections(notebook(table))["Measure"].rows == [("m", 0.0)]


def test_what_is_refuted_is_left_out_and_so_is_a_prediction_of_0():
    tables = refute(("m", 1.0, Estimate(2.0, 0.1))), compare(("m", 0.0, Estimate(0.1, 0.1)))
    assert [sections(notebook(table)) for table in tables] == [{}, {}]
