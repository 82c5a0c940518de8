"""Every slide of the course in a browser: nothing beyond the page, nothing from elsewhere, no error."""

import re
from collections.abc import Iterator
from functools import partial
from operator import ne
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from browser import (
    FRAGMENTS,
    GO,
    ROOT,
    Server,
    Visit,
    find_chromium,
    jupyter_lab,
    open_slides,
    still_picture,
    walk,
)

if find_chromium() is None:
    pytest.skip(
        "no Chromium found: install one, or run `playwright install chromium`", allow_module_level=True
    )

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What RISE always complains of: it asks for a style sheet of the notebook's own, which need not exist,
# and the colours of the notebook's toolbar, which slides hide, depend on each other in a circle.
HARMLESS = ("Maximum call stack size exceeded", "/files/notebooks/{stem}.css")

# What of a slide lies beyond the page or its own frame.
BEYOND = """slide => {
    const parts = '.cm-scroller, .jp-RenderedHTMLCommon, .jp-OutputArea-output, pre, table';
    const wide = [...slide.querySelectorAll(parts)];
    const found = wide.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => `${e.className} is too wide`);
    const high = slide.scrollHeight - slide.clientHeight;
    if (high > 1) found.push(`${slide.id} is ${high} pixels too high`);
    if (slide.getBoundingClientRect().height > 720) found.push(`${slide.id} is no page`);
    return found;
}"""
SMALL = """slide => [...slide.querySelectorAll('p, li, .cm-line')].map(part => {
    const [size, least] = [parseFloat(getComputedStyle(part).fontSize), part.matches('.cm-line') ? 14 : 20];
    return size < least && `${size} px is too small: ${part.innerText.slice(0, 40)}`;
}).filter(Boolean)"""
WRONG_FORMULAS = """() => [...document.querySelectorAll('[data-mjx-error]')].map(
    e => `formula: ${e.dataset.mjxError}`)"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with jupyter_lab() as server:
        yield server


def real_complaints(visit: Visit, stem: str) -> list[str]:
    harmless = tuple(text.format(stem=stem) for text in HARMLESS)
    return [c for c in visit.complaints() if not any(text in c for text in harmless)]


def complaints(visit: Visit, stem: str) -> list[str]:
    """Return what went wrong on a page of slides, and everything on its slides that does not fit."""
    found = [text for slide in walk(visit) for rule in (BEYOND, SMALL) for text in slide.evaluate(rule)]
    return found + visit.page.evaluate(WRONG_FORMULAS) + real_complaints(visit, stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_slides_fit_the_page(server: Server, path: Path, tmp_path: Path):
    with open_slides(server, path.name) as visit:
        visit.screenshot(tmp_path / f"{path.stem}.png")
        assert complaints(visit, path.stem) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_minutes_of_the_plan_add_up(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    opening = "\n".join(cell.source for cell in cells[:3])
    minutes = int(re.search(r"\*\*Minutes:\*\* (\d+)", opening)[1])
    notes = next(c.source for c in cells if c.metadata.slideshow.slide_type == "notes")
    plan = notes.partition(f"**Plan for {minutes} minutes.**")[2]
    lectures = [int(m) for m in re.findall(r"lecture, (\d+) minutes", plan)]
    assert sum(int(m) for m in re.findall(r"\* \((\d+)\)", plan)) == minutes
    assert sum(lectures) == minutes or not lectures


def plant(server: Server, cell: int, source: str) -> str:
    """Write notebook 00 with another cell to the server's copy of the course, and return its name."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.cells[cell].source = source
    if notebook.cells[cell].cell_type == "code":
        notebook.cells[cell].outputs = []  # beside an output long lines wrap
    nbformat.write(notebook, server.root / "notebooks" / "planted.ipynb")
    return "planted.ipynb"


@pytest.mark.parametrize(
    ("cell", "source", "complaint"),
    [
        (0, "line\n\n" * 40, "too high"),
        (3, "wide" * 60, "too wide"),
        (0, "![](https://example.org/x.png)", "https://example.org/x.png"),
        (0, "$\\frac{1}$", "formula"),
    ],
)
def test_a_planted_fault_is_found(server: Server, cell: int, source: str, complaint: str):
    with open_slides(server, plant(server, cell, source)) as visit:
        assert any(complaint in c for c in complaints(visit, "planted"))


def run_cell(visit: Visit, source: str) -> None:
    """Turn to the slide of the code cell that contains `source`, and run the cell there."""
    cell = visit.page.locator(".jp-CodeCell", has_text=source).first
    visit.page.evaluate(
        GO, cell.evaluate("cell => cell.closest('section').id.split('-').slice(1).map(Number)")
    )
    visit.page.wait_for_timeout(600)  # by then RISE has selected a cell of the new slide
    cell.locator(".cm-content").click()
    visit.page.keyboard.press("Shift+Enter")


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_what_runs_on_a_slide_fits_the_page(server: Server, path: Path, tmp_path: Path):
    with open_slides(server, path.name) as visit:
        visit.page.add_style_tag(content=FRAGMENTS)
        run_cell(visit, "use_course_style")
        run_cell(visit, "Playground()" if path.stem.startswith("16") else "demos.")
        visit.page.locator("section.present .widget-image").wait_for(timeout=60_000)
        visit.page.wait_for_timeout(500)  # the slide is fitted anew
        visit.screenshot(tmp_path / f"{path.stem}_live.png")
        slide = visit.page.query_selector("section section.present")
        assert slide.evaluate(BEYOND) + real_complaints(visit, path.stem) == []


def test_a_demo_is_used_on_its_slide(server: Server, tmp_path: Path):
    with open_slides(server, NOTEBOOKS[1].name) as visit:
        visit.page.add_style_tag(content=FRAGMENTS)
        run_cell(visit, "use_course_style")
        run_cell(visit, "demos.")
        slide = visit.page.query_selector("section section.present")
        demo = visit.page.locator("section.present .course-demo")
        demo.locator("img").wait_for()
        image = demo.locator("img")
        pictures = [still_picture(image, bool)]
        for handle in demo.get_by_role("slider").all():
            for key in ("Home", "End", "ArrowLeft"):
                handle.press(key)
                pictures.append(still_picture(image, partial(ne, pictures[-1])))
            handle.drag_to(handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]"))
            pictures.append(still_picture(image, partial(ne, pictures[-1])))
            assert len(set(pictures[-4:])) == 4
        visit.screenshot(tmp_path / "demo.png")
        assert "present" in slide.get_attribute("class")
        assert slide.evaluate(BEYOND) == []
        assert real_complaints(visit, NOTEBOOKS[1].stem) == []
