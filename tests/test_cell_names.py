"""A cell run twice gives the same, and a lecture of some sections runs: told from the names in the code."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from cell_names import effect, missing, overwritten
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from notebook_links import anchor
from reading_time import above, marks

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LECTURES = ROOT / "docs" / "teaching.md"
LINK = re.compile(r"\]\(../notebooks/([^)#]+\.ipynb)#?([^)]*)\)")


def cells(path: Path) -> list[NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def chosen(cells: list[NotebookNode], wanted: Callable[[list[str], str], bool]) -> Iterator[NotebookNode]:
    """Yield the set-up, and of the rest what is wanted by the headings above it and by its mark."""
    for cell, headings, mark in zip(cells, above(cells), marks(cells), strict=True):
        if len(headings) == 1 or wanted(headings, mark):
            yield cell


def of_the_short_path(headings: list[str], mark: str) -> bool:
    return mark == "●"


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_a_cell_run_twice_reads_the_same(path: Path):
    assert list(overwritten(cells(path))) == []


@every_notebook
def test_what_may_be_skipped_is_not_needed(path: Path):
    assert list(missing(chosen(cells(path), lambda headings, mark: mark != "○"))) == []


@every_notebook
def test_the_short_path_runs(path: Path):
    assert list(missing(chosen(cells(path), of_the_short_path))) == []


def lectures() -> list[tuple[Path, set[str], int]]:
    """Return notebook, anchors of the sections (none for all) and minutes of each row of the lectures."""
    tables = LECTURES.read_text(encoding="utf-8")
    rows = [row for row in tables.splitlines() if row.startswith("|") and LINK.search(row)]
    found = [(LINK.findall(row), int(row.split("|")[-2])) for row in rows]
    return [
        (ROOT / "notebooks" / links[0][0], {unquote(place) for _, place in links if place}, minutes)
        for links, minutes in found
    ]


every_lecture = pytest.mark.parametrize(("path", "named", "minutes"), lectures())


@every_lecture
def test_each_lecture_runs(path: Path, named: set[str], minutes: int):
    notebook = cells(path)
    assert named <= {anchor(heading) for headings in above(notebook) for heading in headings}

    def is_named(headings: list[str], mark: str) -> bool:
        return mark != "○" and (not named or bool(named & set(map(anchor, headings))))

    assert list(missing(chosen(notebook, is_named))) == []


@every_lecture
def test_a_lecture_takes_the_minutes_of_the_notebooks_plan(path: Path, named: set[str], minutes: int):
    plan = next(cell.source for cell in cells(path) if "**Plan for" in cell.source).partition("**Plan for")[2]
    sections = {anchor(name): int(time) for name, time in re.findall(r"\*([^*]+)\* \((\d+)\)", plan)}
    chosen = {re.sub("^[●○]-", "", place) for place in named} or set(sections)
    assert sum(sections[place] for place in chosen) == minutes


def test_the_lectures_add_up():
    totals = re.findall(r"^\|[ |]+\*\*(\d+)\*\* \|$", LECTURES.read_text(encoding="utf-8"), re.MULTILINE)
    assert totals == ["45", "90", "180"]
    assert sum(minutes for *_, minutes in lectures()) == sum(map(int, totals))


@pytest.mark.parametrize(
    ("source", "needs", "binds"),
    [
        ("x = y + 1", {"y"}, {"x"}),
        ("x = 1\nz = x", set(), {"x", "z"}),
        ("x = x / 2", {"x"}, {"x"}),
        ("x += 1", {"x"}, {"x"}),
        ("import numpy as np\nprint(np.pi)", set(), {"np"}),
        ("def f(a, b=c):\n    return a + d", {"c", "d"}, {"f"}),
        ("f = lambda a: a * k", {"k"}, {"f"}),
        ("for i in r:\n    s = g(i)\n    print(s)", {"r", "g"}, {"i", "s"}),
        ("total = [v * w for v in vs]", {"w", "vs"}, {"total"}),
        ("class A(B):\n    n = m", {"B", "m"}, {"A"}),
        ("ax.plot(x)", {"ax", "x"}, set()),
        ("x[0] = 1", {"x"}, set()),
    ],
)
def test_effect(source: str, needs: set[str], binds: set[str]):
    assert effect(source) == (needs, binds)


def course(*sources: str) -> list[NotebookNode]:
    return [new_markdown_cell(s) if s.startswith("#") else new_code_cell(s) for s in sources]


def test_a_name_with_two_meanings_is_found():
    good = course("m = 1", "print(m)", "n = 2", "print(m, n)", "for i in range(m):\n    print(i)")
    assert not list(overwritten(good))
    assert list(overwritten(course("m = 1", "print(m)", "m = 2")))
    assert list(overwritten(course("m = 1", "m = m + 1")))
    assert list(overwritten(course("rows = []", "rows += [1]")))
    reader = "net = 1\n\ndef f():\n    return net"
    assert list(overwritten(course(reader, "net = 2")))
    assert not list(overwritten(course(reader, "f()", "other = 2")))


def test_a_name_from_a_skipped_section_is_found():
    sections = course(
        "# T", "a = 1", "## ● B", "b = a", "## C", "c = b", "## ● D", "print(b)", "### ○ E", "e = c"
    )

    assert list(missing(chosen(sections, of_the_short_path))) == []
    sections[7].source = "print(c)"
    assert len(list(missing(chosen(sections, of_the_short_path)))) == 1
