"""The course in a real browser: every slide, every demo on its slide, JupyterLab's view of three notebooks.

nbval runs every cell of every notebook, so here only what a browser adds is looked at. The tests share a
server and a page, once for each of the two groups in which tests/conftest.py hands them out.
"""

import re
from collections.abc import Iterator
from functools import partial
from operator import eq, ne
from pathlib import Path

import browser
import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from browser import DOTS, GO, ROOT, Visit, on_each_slide, open_slides, still_picture
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Locator
from test_predictions import NUMBER, is_collapsed

if browser.find_chromium() is None:
    pytest.skip(
        "no Chromium found: install one, or run `playwright install chromium`", allow_module_level=True
    )

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGETS = DEMO, PLAYGROUND = "demo()", "Playground()"


@pytest.fixture(scope="module")
def visit() -> Iterator[Visit]:
    with browser.jupyter_lab() as server, browser.open_browser(server) as visit:
        yield visit


# slides

# What RISE always complains of: it asks for a style sheet of the notebook's own, which need not exist,
# and the colours of the notebook's toolbar, which slides hide, depend on each other in a circle.
HARMLESS = ("Maximum call stack size exceeded", "/files/notebooks/{stem}.css")

# What of a slide lies beyond the page or its own frame, is too small to read, or is no formula.
FAULTS = """slide => {
    const found = [];
    const parts = '.cm-scroller, .jp-RenderedHTMLCommon, .jp-OutputArea-output, pre, table';
    for (const part of slide.querySelectorAll(parts))
        if (part.scrollWidth > part.clientWidth + 1) found.push(`${part.className} is too wide`);
    const high = slide.scrollHeight - slide.clientHeight;
    if (high > 1) found.push(`${slide.id} is ${high} pixels too high`);
    if (slide.getBoundingClientRect().height > innerHeight) found.push(`${slide.id} is no page`);
    for (const part of slide.querySelectorAll('p, li, .cm-line')) {
        const size = parseFloat(getComputedStyle(part).fontSize);
        if (size < (part.matches('.cm-line') ? 14 : 20))
            found.push(`${size} px is too small: ${part.textContent.slice(0, 40)}`);
    }
    for (const formula of slide.querySelectorAll('[data-mjx-error]'))
        found.push(`formula: ${formula.dataset.mjxError}`);
    return found;
}"""


def complaints(visit: Visit, stem: str) -> list[str]:
    """Return what a page of slides complains of, without what RISE always does."""
    harmless = tuple(text.format(stem=stem) for text in HARMLESS)
    return [c for c in visit.complaints() if not any(text in c for text in harmless)]


def run_on_slide(visit: Visit, source: str) -> None:
    """Turn to the slide of the code cell that contains `source`, and run the cell there as by a hand."""
    cell = visit.page.locator(".jp-CodeCell", has_text=source).first
    place = cell.evaluate("cell => cell.closest('section').id.split('-').slice(1).map(Number)")
    visit.page.evaluate(GO, place)
    visit.page.locator("section.present .jp-Cell.jp-mod-active").first.wait_for()  # RISE selects one
    cell.locator(".cm-content").click()
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
            now = still_picture(image, partial(ne, now))
        seen.append(now)
    return seen[0] != seen[1]


def follows_the_mouse(image: Locator, handle: Locator) -> bool:
    """Drag a slider from its end to its middle and step back by a key; return whether all pictures differ."""
    seen = [still_picture(image)]
    handle.drag_to(handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]"))
    seen.append(still_picture(image, partial(ne, seen[-1])))
    handle.press("ArrowLeft")
    seen.append(still_picture(image, partial(ne, seen[-1])))
    return len(set(seen)) == 3


def use_demo(demo: Locator, by_mouse: bool = False) -> list[str]:
    """Use every control of a demo, its sliders also by the mouse, then Reset; return what is not followed."""
    image = demo.locator("img.widget-image")
    first, found = still_picture(image), []
    controls = demo.locator(".course-controls > .widget-inline-hbox").all()
    assert len(controls) >= 2
    for control in controls:
        if not follows(image, control.locator("[role=slider], select, input[type=checkbox]").first):
            found.append(f"the picture does not follow {control.inner_text()}")
    if by_mouse and not all(follows_the_mouse(image, handle) for handle in demo.get_by_role("slider").all()):
        found.append("the picture does not follow a slider that is dragged")
    demo.get_by_role("button", name="Reset").press("Enter")
    if still_picture(image, partial(eq, first)) != first:
        found.append("Reset does not bring back the first picture")
    return found


def widget_of(path: Path) -> str | None:
    """Return the call that shows a notebook's demo or the playground, None if it has neither."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return next((call for call in WIDGETS if any(call in source for source in code)), None)


def use_on_slide(visit: Visit, name: str, widget: str) -> list[str]:
    """Run set-up and widget on their slides, use a demo there, and return what is wrong."""
    run_on_slide(visit, "use_course_style")
    run_on_slide(visit, widget)
    slide = visit.page.locator("section section.present")
    slide.locator(".widget-image").wait_for(timeout=60_000)
    place = slide.get_attribute("id")
    demo = slide.locator(".course-demo")
    found = use_demo(demo, by_mouse=name.startswith("01")) if widget == DEMO else []
    visit.screenshot(f"{name}_live")
    if slide.get_attribute("id") != place:
        found.append("a key pressed in the demo turns the page")
    return found + slide.evaluate(FAULTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_slides_fit_the_page_and_their_demo_works(path: Path, visit: Visit):
    open_slides(visit, path.name)
    visit.screenshot(path.stem)
    found = on_each_slide(visit, FAULTS)
    if widget := widget_of(path):
        found += use_on_slide(visit, path.stem, widget)
    assert found + complaints(visit, path.stem) == []


SET_UP = """from course_utils import demos, plotting
plotting.use_course_style()"""
DEAD_DEMO = """demo = demos.relu_demo()
demo.controls["gain"].unobserve_all("value")
demo.reset_button._click_handlers.callbacks.clear()
demo"""


def planted() -> nbformat.NotebookNode:
    """Return a notebook with a fault on every slide except that of the set-up."""
    images = "![](https://example.org/x.png) ![](missing.png)"
    texts = ["$\\frac{1}$", "line\n\n" * 40, images]
    codes = [SET_UP, "wide = " + "wide" * 60, DEAD_DEMO]
    cells = [*map(new_markdown_cell, texts), *map(new_code_cell, codes)]
    for cell in cells:
        cell.metadata.slideshow = {"slide_type": "slide"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}  # else RISE asks
    return new_notebook(cells=cells, metadata=kernel)


def test_planted_faults_are_found(visit: Visit, monkeypatch: pytest.MonkeyPatch):
    nbformat.write(planted(), visit.server.root / "notebooks" / "planted.ipynb")
    monkeypatch.setattr(browser, "PATIENCE", 3)
    open_slides(visit, "planted.ipynb")
    found = "\n".join(
        [*on_each_slide(visit, FAULTS), *use_on_slide(visit, "planted", DEMO), *complaints(visit, "planted")]
    )
    wanted = ["formula", "too high", "too wide", "https://example.org/x.png", "404", "Failed to load"]
    wanted += ["not follow gain", "Reset does not"]
    assert [text for text in wanted if text not in found] == []
    assert "not follow width" not in found


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
    run_in_lab(visit, "04_relu_and_kaiming.ipynb", "use_course_style", DEMO)
    assert use_demo(show(visit, DEMO, ".course-demo")) == []
    visit.screenshot("04_demo")
    assert visit.complaints() == []


def test_collapsed_answers_show_a_heading_and_no_number(visit: Visit):
    notebook = nbformat.read(ROOT / "notebooks" / "03_tanh_and_xavier.ipynb", as_version=4)
    visit.open("lab/tree/notebooks/03_tanh_and_xavier.ipynb")
    count = sum(map(is_collapsed, notebook.cells))
    visit.page.wait_for_function(f"document.querySelectorAll('{DOTS}').length === {count}", timeout=60_000)
    shown = visit.page.locator(DOTS).all_inner_texts()
    assert all(shown)
    assert not any(map(NUMBER.search, shown))


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
    run_in_lab(visit, "21_playground.ipynb", "use_course_style", PLAYGROUND)
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
    assert still_picture(image, partial(eq, start)) == start
    assert visit.complaints() == []
