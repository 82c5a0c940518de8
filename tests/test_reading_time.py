"""The minutes that notebooks, README and the card of the short path state are those that a reader needs."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import write_exercises
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from notebook_links import COURSE_MAP, anchor
from reading_time import above, marks, minutes, needed, short

from course_utils.exercises.questions import NOTEBOOKS as WITH_QUESTIONS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST, SHORT_PATH = 90, 240


def cells(path: Path) -> list[NotebookNode]:
    return nbformat.read(path, as_version=4).cells


TRIED_OUT = {"20_clinic", "21_playground"}  # how long that takes, the count does not see


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_fits_a_sitting_and_states_its_minutes(path: Path):
    stated, optional = stated_minutes(cells(path))
    least, skipped = needed(cells(path)), needed(cells(path), optional=True)
    slack = 35 if path.stem in TRIED_OUT else 20
    assert round(least) <= stated <= min(LONGEST, least + slack)
    assert round(skipped) <= optional <= skipped + 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_minutes_of_what_is_marked_are_the_same_wherever_a_notebook_states_them(path: Path):
    text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    repeated = re.findall(r"○ \((\d+) minutes\)|they add (\d+) minutes", text)
    assert {int(first or second) for first, second in repeated} <= {stated_minutes(cells(path))[1]}


def stated_minutes(cells: list[NotebookNode]) -> tuple[int, int]:
    """Return the minutes that an opening states, and those for what is marked ○."""
    opening = "\n".join(cell.source for cell in cells[:3])
    found = re.search(r"\*\*Minutes:\*\* (\d+)(?:, and (\d+) for what is marked ○)?", opening)
    return int(found[1]), int(found[2] or 0)


def test_the_short_path_takes_four_hours_and_its_card_names_its_sections():
    path = [(f.name, heading) for f in NOTEBOOKS for heading in marked(cells(f))]
    card = COURSE_MAP[COURSE_MAP.index("**The short path") :].partition("\n\n### ")[0]
    assert [(name, unquote(anchor)) for name, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", card)] == path
    total = sum(short(cells(f)) for f in NOTEBOOKS)
    assert total <= SHORT_PATH
    assert f"({5 * round(total / 5)} minutes)" in card


def marked(cells: list[NotebookNode]) -> list[str]:
    """Return the anchors of the headings with ●."""
    found = dict.fromkeys(headings[-1] for headings in above(cells) if headings and "●" in headings[-1])
    return list(map(anchor, found))


def test_the_whole_course_takes_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    words = r"whole course takes about (\d+) hours, (\d+) more .*, and\s+(\d+) for the\s+exercises"
    hours, more, exercises = re.search(words, readme).groups()
    stated, optional = map(sum, zip(*(stated_minutes(cells(path)) for path in NOTEBOOKS), strict=True))
    needed = stated, optional, sum(map(write_exercises.minutes, WITH_QUESTIONS))
    assert [hours, more, exercises] == [str(round(minutes / 60)) for minutes in needed], "README"


COURSE = [
    new_markdown_cell("# " + "word " * 129),
    new_markdown_cell("## ● One\n\n| a | b |\n|:--|--:|\n| 1 | 2 |"),
    new_code_cell(
        "x = 1\n\n" * 16, outputs=[new_output("display_data", {"image/png": "", "text/plain": ""})]
    ),
    new_markdown_cell("### ○ Two [" + "word " * 258 + "](address_with_words.ipynb)"),
    new_markdown_cell("not read " * 100, metadata={"slideshow": {"slide_type": "notes"}}),
    new_markdown_cell("## Three"),
    new_code_cell("y", outputs=[new_output("execute_result", {"text/markdown": "", "text/plain": ""})]),
]


def test_minutes_count_words_lines_tables_and_figures():
    expected = [129 / 130, 0.5 + 5 / 130, 3, 259 / 130, 0, 1 / 130, 1 / 8 + 0.5]
    assert [minutes(cell) for cell in COURSE] == pytest.approx(expected)


def test_a_mark_holds_until_the_next_heading_of_its_level():
    assert marks(COURSE) == ["", "●", "●", "○", "○", "", ""]
    assert needed(COURSE) == pytest.approx(sum(map(minutes, COURSE)) - 259 / 130)
    assert short(COURSE) == pytest.approx(sum(map(minutes, COURSE[:3])))
    assert short(COURSE[5:]) == 0
