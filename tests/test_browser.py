"""The course in a real browser: every slide, every demo on its slide, JupyterLab's view of three notebooks.

nbval runs every cell of every notebook, so here only what a browser adds is looked at. The tests share a
server and a page.
"""

import re
from collections.abc import Iterator
from itertools import accumulate, chain
from pathlib import Path

import browser
import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from browser import GO, ROOT, Visit, on_each_slide, open_slides, still_picture
from lay_out_slides import is_on_slides
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Locator
from store_outputs import NOTEBOOK_METADATA
from test_predictions import NUMBER, is_collapsed
from write_exercises import cells_of

if browser.find_chromium() is None:
    pytest.skip(
        "no Chromium found: install one, or run `playwright install chromium`", allow_module_level=True
    )

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# To start RISE takes longer than to show a notebook in it, so several make up one set of slides.
SETS = [NOTEBOOKS[first : first + 4] for first in range(0, len(NOTEBOOKS), 4)]
SET_UP, DEMO, PLAYGROUND = "use_course_style", "demo()", "Playground()"


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    with browser.jupyter_lab() as server, browser.open_browser(server) as visit:
        yield visit


# slides

# What RISE always complains of: it asks for a style sheet of the notebook's own, which need not exist,
# and the colours of the notebook's toolbar, which slides hide, depend on each other in a circle.
HARMLESS = ("Maximum call stack size exceeded", "/files/notebooks/slides.css")

# What of a slide lies beyond the page or its own frame, is too small to read, or is no formula.
FAULTS = """slide => {
    const found = [];
    const parts = '.cm-scroller, .jp-RenderedHTMLCommon, .jp-OutputArea-output, pre, table';
    for (const part of slide.querySelectorAll(parts))
        if (part.scrollWidth > part.clientWidth + 1) found.push(`${part.className} is too wide`);
    const high = slide.scrollHeight - slide.clientHeight;
    if (high > 1) found.push(`${slide.id} is ${high} pixels too high`);
    if (slide.getBoundingClientRect().height > innerHeight) found.push(`${slide.id} is no page`);
    const style = getComputedStyle(slide);
    for (const part of slide.querySelectorAll('p, li, .cm-line')) {
        const size = parseFloat(getComputedStyle(part).fontSize);
        const least = style.getPropertyValue(`--course-least-${part.matches('.cm-line') ? 'code' : 'text'}`);
        if (!(size > least - 0.01))
            found.push(`${size} px is too small: ${part.textContent.slice(0, 40)}`);
    }
    for (const formula of slide.querySelectorAll('[data-mjx-error]'))
        found.push(`formula: ${formula.dataset.mjxError}`);
    return found.map(fault => `${fault}, on the slide ${slide.textContent.trim().slice(0, 60)}`);
}"""


def complaints(visit: Visit) -> list[str]:
    """Return what a page of slides complains of, without what RISE always does."""
    return [c for c in visit.complaints() if not any(text in c for text in HARMLESS)]


def open_together(visit: Visit, cells: list[nbformat.NotebookNode]) -> list[str]:
    """Open these cells as one set of slides, and return which of its collapsed outputs tell too much."""
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"  # two notebooks may use the same
    path = visit.server.root / "notebooks" / "slides.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=NOTEBOOK_METADATA), path)
    shown = open_slides(visit, path.name)
    assert len(shown) == sum(map(is_collapsed, cells))
    return [f"a collapsed output shows {text!r}" for text in shown if NUMBER.search(text)]


def run_on_slide(visit: Visit, place: int) -> None:
    """Turn to the slide of the code cell at this place of the notebook, and run it there as by a hand."""
    cell = visit.page.locator(f'.jp-CodeCell[data-windowed-list-index="{place}"]')
    slide = cell.evaluate("cell => cell.closest('section').id.split('-').slice(1).map(Number)")
    visit.page.evaluate(GO, slide)
    for _ in range(20):  # RISE may select another cell of the slide a little later
        cell.locator(".cm-content").click()
        visit.page.wait_for_timeout(200)
        if cell.locator(".cm-focused").count():
            break
    visit.page.keyboard.press("Shift+Enter")


# Where a slider stands; its aria-valuenow has a single decimal.
VALUE = "e => e.type === 'checkbox' ? e.checked : e.closest('.noUi-origin')?.style.transform ?? e.value"


def move(handle: Locator, end: str) -> bool:
    """Move a control to its "Home" or "End" by the keyboard, and return whether its value changed."""
    before = handle.evaluate(VALUE)
    is_box = handle.get_attribute("type") == "checkbox"
    handle.set_checked(end == "End") if is_box else handle.press(end)
    return handle.evaluate(VALUE) != before


def follows(image: Locator, handle: Locator) -> bool:
    """Move a control to both ends, and return whether they have different pictures."""
    now, seen = still_picture(image), []
    for end in ("Home", "End"):
        if move(handle, end):
            now = still_picture(image, unlike=now)
        seen.append(now)
    return seen[0] != seen[1]


def follows_the_mouse(image: Locator, handle: Locator) -> bool:
    """Drag a slider from its end to its middle and step back by a key; return whether all pictures differ."""
    seen = [still_picture(image)]
    handle.drag_to(handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]"))
    seen.append(still_picture(image, unlike=seen[-1]))
    handle.press("ArrowLeft")
    seen.append(still_picture(image, unlike=seen[-1]))
    return len(set(seen)) == 3


def use_demo(demo: Locator, thoroughly: bool = True) -> list[str]:
    """Use a demo's first control, or all of them and the mouse, then Reset; return what is not followed."""
    image = demo.locator("img.widget-image")
    first, found = still_picture(image), []
    controls = demo.locator(".course-controls > .widget-inline-hbox").all()
    assert len(controls) >= 2
    for control in controls if thoroughly else controls[:1]:
        if not follows(image, control.locator("[role=slider], select, input[type=checkbox]").first):
            found.append(f"the picture does not follow {control.inner_text()}")
    sliders = demo.get_by_role("slider").all() if thoroughly else []
    if not all(follows_the_mouse(image, handle) for handle in sliders):
        found.append("the picture does not follow a slider that is dragged")
    demo.get_by_role("button", name="Reset").press("Enter")
    if still_picture(image, like=first) != first:
        found.append("Reset does not bring back the first picture")
    return found


def find_code(cells: list[nbformat.NotebookNode], *texts: str) -> int | None:
    """Return the place of the first code cell with one of these texts, None where there is none."""
    places = (i for i, c in enumerate(cells) if c.cell_type == "code" and any(t in c.source for t in texts))
    return next(places, None)


def slide_of(cells: list[nbformat.NotebookNode], place: int) -> list[nbformat.NotebookNode]:
    """Return the cells of the slide that the cell at this place is on."""
    starts = [i for i, cell in enumerate(cells) if "slide" in cell.metadata.slideshow.slide_type]
    first = max(start for start in starts if start <= place)
    return cells[first : min((start for start in starts if start > place), default=None)]


def live_slides(path: Path) -> list[nbformat.NotebookNode]:
    """Return the cells of the slides with a notebook's set-up and its widget, none where it has no widget."""
    cells = nbformat.read(path, as_version=4).cells
    widget = find_code(cells, DEMO, PLAYGROUND)
    if widget is None:
        return []
    set_up = slide_of(cells, find_code(cells, SET_UP))
    set_up[0].metadata.slideshow.slide_type = "slide"  # so that the demo has pages to its left and its right
    return set_up + slide_of(cells, widget)


def use_on_slide(visit: Visit, cells: list[nbformat.NotebookNode], first: int = 0) -> list[str]:
    """Run set-up and widget of these cells on their slides, use a demo there, and return what is wrong.

    `first` is the place of the first of them among the slides that are open; where that is 0, every control
    is used. (That each control of each demo moves the picture is tested without a browser.)
    """
    widget = find_code(cells, DEMO, PLAYGROUND)
    run_on_slide(visit, first + find_code(cells, SET_UP))
    run_on_slide(visit, first + widget)
    slide = visit.page.locator("section section.present")
    slide.locator(".widget-image").wait_for(timeout=60_000)
    place, call = slide.get_attribute("id"), cells[widget].source
    demo = slide.locator(".course-demo")
    found = use_demo(demo, thoroughly=first == 0) if DEMO in call else []
    visit.screenshot(f"live_{place}")
    if slide.get_attribute("id") != place:
        found.append("a key pressed in the demo turns the page")
    return [f"{call}: {fault}" for fault in found] + slide.evaluate(FAULTS)


@pytest.mark.parametrize("paths", SETS, ids=lambda paths: f"{paths[0].stem[:2]} to {paths[-1].stem[:2]}")
def test_every_slide_fits_the_page(paths: list[Path], visit: Visit):
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells if is_on_slides(cell)]
    found = open_together(visit, cells)
    visit.screenshot(paths[0].stem)
    found += on_each_slide(visit, FAULTS)
    assert found + complaints(visit) == []


def test_every_demo_works_on_its_slide(visit: Visit):
    live = list(filter(None, map(live_slides, NOTEBOOKS)))
    found = open_together(visit, list(chain(*live)))
    for cells, first in zip(live, accumulate(map(len, live), initial=0), strict=False):
        found += use_on_slide(visit, cells, first)
    assert found + complaints(visit) == []


DEAD_DEMO = """demo = demos.relu_demo()
demo.controls["gain"].unobserve_all("value")
demo.reset_button._click_handlers.callbacks.clear()
demo"""


def planted() -> list[nbformat.NotebookNode]:
    """Return cells with a fault on every slide except that of the set-up."""
    images = "![](https://example.org/x.png) ![](missing.png)"
    texts = ["$\\frac{1}$", "line\n\n" * 40, images]
    set_up = "from course_utils import demos, plotting\nplotting.use_course_style()"
    codes = [set_up, "wide = " + "wide" * 60, "print(answer)", DEAD_DEMO]
    cells = [*map(new_markdown_cell, texts), *map(new_code_cell, codes)]
    cells[5].outputs = [new_output("stream", text="the answer is 4.2")]
    cells[5].metadata.jupyter = {"outputs_hidden": True}
    for cell in cells:
        cell.metadata.slideshow = {"slide_type": "slide"}
    return cells


def test_planted_faults_are_found(visit: Visit, monkeypatch: pytest.MonkeyPatch):
    cells = planted()
    monkeypatch.setattr(browser, "PATIENCE", 3)
    found = open_together(visit, cells)
    found += [*on_each_slide(visit, FAULTS), *use_on_slide(visit, cells), *complaints(visit)]
    wanted = ["formula", "too high", "too wide", "https://example.org/x.png", "404", "Failed to load"]
    wanted += ["not follow gain", "Reset does not", "shows 'the answer is 4.2'"]
    assert [text for text in wanted if text not in "\n".join(found)] == []
    assert "not follow width" not in "\n".join(found)


def wait_for_slide(visit: Visit, place: str) -> None:
    visit.page.wait_for_function(
        f"document.querySelector('.slides section section.present')?.id === 'slide-{place}'", timeout=60_000
    )


def test_a_lecturer_finds_the_way(visit: Visit):
    """An address opens its section, arrows leave no slide out, links open slides, texts keep their source."""
    texts = [
        "# Title",
        "## ● The *fix*: √n and [more](more.ipynb)",
        "[out](https://example.org/x.ipynb)",
        "not shown",
        "end",
    ]
    cells = [*map(new_markdown_cell, texts)]
    cells.insert(3, new_code_cell("6 * 7"))
    for cell, kind in zip(cells, ("slide", "slide", "subslide", "slide", "skip", "slide"), strict=True):
        cell.metadata.slideshow = {"slide_type": kind}
    notebook = new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    for name in ("slides", "more"):
        nbformat.write(notebook, visit.server.root / "notebooks" / f"{name}.ipynb")
    visit.open("rise/notebooks/slides.ipynb", "#●-The-fix:-√n-and-more")
    page = visit.page
    wait_for_slide(visit, "1-0")
    text = page.locator("#slide-1-0 .jp-MarkdownCell")
    text.dblclick(position={"x": 30, "y": 20})
    text.press("Enter")
    assert not text.locator(".cm-content").is_visible()
    for key, place in {"ArrowRight": "1-1", "ArrowLeft": "1-0", "Space": "1-1", "PageDown": "2-0"}.items():
        page.keyboard.press(key)
        wait_for_slide(visit, place)
    cell = page.locator("#slide-2-0 .jp-CodeCell")
    cell.locator(".cm-content").click()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+Enter")
    cell.get_by_text("42").wait_for()
    wait_for_slide(visit, "2-0")
    page.keyboard.press("Escape")
    page.keyboard.press("PageDown")
    wait_for_slide(visit, "3-0")
    assert [
        text.is_visible() for text in page.locator("p", has_text=re.compile("^(not shown|end)$")).all()
    ] == [False, True]
    page.evaluate(GO, [1, 1])
    with page.expect_popup() as elsewhere:
        page.get_by_role("link", name="out").click()
    elsewhere.value.close()
    page.evaluate("location.hash = '#●-The-fix:-√n-and-more'")  # typed behind the address of an open tab
    wait_for_slide(visit, "1-0")
    page.reload()  # an address that names the slide already, as in the speaker's window
    wait_for_slide(visit, "1-0")
    page.get_by_role("link", name="more").click()
    page.wait_for_url("**/rise/notebooks/more.ipynb*")
    wait_for_slide(visit, "0-0")


# JupyterLab

# Run the cells that contain one of these texts, as Shift+Enter would; return the cells that show an error.
RUN = """async texts => {
    const notebook = jupyterapp.shell.currentWidget.content;
    for (const [index, { model }] of notebook.widgets.entries()) {
        if (model.type !== 'code' || !texts.some(text => model.sharedModel.source.includes(text))) continue;
        notebook.activeCellIndex = index;
        await jupyterapp.commands.execute('notebook:run-cell');
        if (!model.executionCount) return [`${model.id} did not run`];
    }
    const failed = ({ model }) => model.toJSON().outputs?.some(output => output.output_type === 'error');
    return notebook.widgets.filter(failed).map(({ model }) => model.id);
}"""
LAST_CODE_CELL = (
    "[...jupyterapp.shell.currentWidget.content.model.cells].findLast(cell => cell.type === 'code')"
)
# A click on a button waits in one queue with the cells: with this reply, those from before are dealt with.
CATCH_UP = """async () => {
    const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
    await kernel.requestExecute({ code: '', silent: true, store_history: false }).done;
}"""
SHOW = """text => {
    const notebook = jupyterapp.shell.currentWidget.content;
    const index = notebook.widgets.findIndex(({ model }) => model.sharedModel.source.includes(text));
    notebook.activeCellIndex = index;
    return notebook.scrollToItem(index, 'start');
}"""


def run_in_lab(visit: Visit, notebook: str, *texts: str) -> None:
    """Open a notebook in JupyterLab, and run its cells with one of these texts without an error."""
    visit.open(f"lab/tree/notebooks/{notebook}")
    visit.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    ready = "window.jupyterapp.shell.currentWidget.sessionContext.isReady"
    visit.page.wait_for_function(ready, timeout=60_000)
    assert visit.page.evaluate(RUN, texts) == []


def show(visit: Visit, source: str, selector: str) -> Locator:
    """Scroll to the first cell that contains `source` until what it shows is there, and return that."""
    found = visit.page.locator(selector)
    for _ in range(40):  # the page moves while cells above it find their height
        visit.page.evaluate(SHOW, source)
        visit.page.wait_for_timeout(250)
        if found.count():
            break
    return found


def test_the_first_notebook_runs_in_jupyterlab_and_an_error_would_be_found(visit: Visit):
    run_in_lab(visit, NOTEBOOKS[0].name, "")
    visit.screenshot("00_end")
    assert visit.complaints() == []
    visit.page.evaluate(f"{LAST_CODE_CELL}.sharedModel.setSource('1 / 0')")
    assert visit.page.evaluate(RUN, ["1 / 0"]) == [visit.page.evaluate(f"{LAST_CODE_CELL}.id")]


def test_a_demo_works_in_jupyterlab(visit: Visit):
    run_in_lab(visit, "04_relu_and_kaiming.ipynb", SET_UP, DEMO)
    assert use_demo(show(visit, DEMO, ".course-demo")) == []
    visit.screenshot("04_demo")
    assert visit.complaints() == []


# What is typed over an exercise's cell, and what it is told.
TYPED = {
    "01.1": ("answer_1 = 'six'\ncheck('01.1', answer_1)", "01.1 cannot be judged: a number is expected"),
    "04.1": ("answer_1 = 4\ncheck('04.1', answer_1)", "04.1 not yet. That is E z²."),
    "04.4": ("answer_4 = (6 / 200) ** 0.5\ncheck('04.4', answer_4)", "04.4 right."),
    "09.7": (
        "def keep_rms_(*given):\n    print('x')\n    1 / 0\ncheck('09.7', keep_rms_)",
        'line 3, "1 / 0"',
    ),
}


def test_exercises_answer_what_is_typed_in_jupyterlab(visit: Visit):
    asked = [cell for notebook in ("01", "04", "09") for cell in cells_of(notebook)]
    cells = [asked[1], *(next(c for c in asked if f'check("{number}"' in c.source) for number in TYPED)]
    path = visit.server.root / "notebooks" / "exercises.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=NOTEBOOK_METADATA), path)
    run_in_lab(visit, path.name, "import check")
    for place, (typed, told) in enumerate(TYPED.values(), start=1):
        cell = visit.page.locator(f'.jp-CodeCell[data-windowed-list-index="{place}"]')
        cell.locator(".cm-content").click()
        visit.page.keyboard.press("Control+A")
        visit.page.keyboard.insert_text(typed)
        visit.page.keyboard.press("Shift+Enter")
        cell.locator(".jp-OutputArea-output").get_by_text(told).wait_for(timeout=60_000)
    visit.screenshot("exercises")
    assert visit.complaints() == []


BROKEN_FORMULAS = "[...document.querySelectorAll('[data-mjx-error]')].map(part => part.dataset.mjxError)"


def test_what_is_on_no_slide_is_set_without_an_error_in_jupyterlab(visit: Visit):
    every = chain(*(nbformat.read(path, as_version=4).cells for path in NOTEBOOKS))
    cells = [new_markdown_cell(c.source) for c in every if c.cell_type == "markdown" and not is_on_slides(c)]
    cells.append(new_markdown_cell("A fault: $\\frac{1}$"))
    path = visit.server.root / "notebooks" / "on_no_slide.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=NOTEBOOK_METADATA), path)
    visit.open(f"lab/tree/notebooks/{path.name}")
    visit.page.wait_for_selector("[data-mjx-error]", timeout=60_000)
    visit.page.wait_for_load_state("networkidle")
    assert len(visit.page.evaluate(BROKEN_FORMULAS)) == 1
    assert visit.page.locator("mjx-container").count() > 100


def steps(visit: Visit) -> list[int]:
    """Return the step that the panel says each side has made."""
    status = visit.page.locator(".playground-status").inner_text()
    return [int(number) for number in re.findall(r"step (\d+)", status)]


def wait_for_steps(visit: Visit, low: int, high: int = 10_000) -> None:
    """Wait until the panel says that both sides are between steps `low` and `high`."""
    for _ in range(600):
        if all(low <= step <= high for step in steps(visit)):
            return
        visit.page.wait_for_timeout(100)
    raise AssertionError(f"steps {steps(visit)} are not between {low} and {high} after a minute")


def test_the_playground_obeys_in_jupyterlab(visit: Visit):
    """Run, change a setting while it runs, pause, step, reset: the panel follows each of them."""
    run_in_lab(visit, "21_playground.ipynb", SET_UP, PLAYGROUND)
    panel = show(visit, PLAYGROUND, ".course-playground")
    image, depth = panel.locator("img.widget-image"), panel.locator(".playground-depth select").first
    run, pause, step, reset = (
        panel.get_by_role("button", name=name) for name in ("Run", "Pause", "Step", "Reset")
    )
    chosen, start = depth.input_value(), still_picture(image)
    run.click()
    wait_for_steps(visit, 50)
    visit.screenshot("21_runs")
    depth.select_option("8")  # both start anew, and go on
    wait_for_steps(visit, 0, 40)
    wait_for_steps(visit, 50)
    pause.click()
    visit.page.evaluate(CATCH_UP)
    visit.page.wait_for_timeout(1000)  # the last picture may still be under way
    paused = still_picture(image), steps(visit)
    visit.page.wait_for_timeout(1000)
    assert (still_picture(image), steps(visit)) == paused
    step.press("Enter")
    wait_for_steps(visit, max(paused[1]) + 1, max(paused[1]) + 1)
    reset.press("Space")
    wait_for_steps(visit, 0, 0)
    depth.select_option(chosen)
    assert still_picture(image, like=start) == start
    assert visit.complaints() == []
