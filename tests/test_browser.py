"""The course in a real browser: each notebook is opened in JupyterLab and run, its demo used as by a hand."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from operator import eq, ne

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from browser import ROOT, Server, Visit, find_chromium, jupyter_lab, open_page, still_picture
from playwright.sync_api import Locator

if find_chromium() is None:
    pytest.skip(
        "no Chromium found: install one, or run `playwright install chromium`", allow_module_level=True
    )

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

RUN_ALL = """async () => {
    const ran = await jupyterapp.commands.execute("notebook:run-all-cells");
    const cells = [...jupyterapp.shell.currentWidget.content.model.cells];
    const code = cells.filter((cell) => cell.type === "code");
    const failed = code.filter((cell) => cell.toJSON().outputs.some((o) => o.output_type === "error"));
    return [ran, code.length, code.filter((cell) => cell.executionCount).length, failed.map((c) => c.id)];
}"""
# Clicks on buttons wait in one queue with the cells: with this reply, those from before are dealt with.
CATCH_UP = """async () => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    await kernel.requestExecute({code: "", silent: true, store_history: false}).done;
}"""
SHOW = """(text) => {
    const notebook = jupyterapp.shell.currentWidget.content;
    const index = notebook.widgets.findIndex((cell) => cell.model.sharedModel.source.startsWith(text));
    notebook.activeCellIndex = index;
    return notebook.scrollToItem(index, "start");
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with jupyter_lab() as server:
        yield server


def open_notebook(visit: Visit) -> None:
    visit.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    visit.page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.isReady", timeout=60_000
    )


def run_all(visit: Visit) -> None:
    """Run the notebook from its first to its last cell and assert that all of them ran without an error."""
    ran, code, executed, failed = visit.page.evaluate(RUN_ALL)
    assert ran
    assert failed == []
    assert executed == code


def show(visit: Visit, source: str, selector: str) -> Locator:
    """Scroll to the cell whose source begins with `source` until what it shows is there, and return that."""
    found = visit.page.locator(selector)
    for _ in range(20):  # the page moves while cells above it find their height
        visit.page.evaluate(SHOW, source)
        visit.page.wait_for_timeout(500)
        if found.count():
            break
    return found


def picture(demo: Locator, wanted: Callable[[bytes], bool] = bool) -> bytes:
    """Return the picture once clicks are dealt with, it stands still, and it is `wanted`."""
    demo.page.evaluate(CATCH_UP)
    return still_picture(demo.locator("img.widget-image"), wanted)


def move(control: Locator, end: str) -> None:
    """Move the control to its "Home" or "End" by the keyboard; a menu to its first or last entry."""
    handle = control.locator("[role=slider], select, input[type=checkbox]").first
    handle.focus()
    handle.press(end) if handle.get_attribute("type") != "checkbox" else handle.set_checked(end == "End")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_and_its_demo_can_be_moved(name, server, tmp_path):
    with open_page(server, f"lab/tree/notebooks/{name}") as visit:
        open_notebook(visit)
        run_all(visit)
        visit.screenshot(tmp_path / f"{name[:2]}_end.png")
        if name.startswith("16"):
            use_playground(visit, tmp_path)
        elif not name.startswith("00"):
            use_demo(visit, name, tmp_path)
        visit.page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        assert visit.complaints() == []


def use_demo(visit, name, tmp_path):
    """Move every control to both ends and see the picture change; the reset brings the first one back."""
    demo = show(visit, "demos.", ".course-demo")
    first = picture(demo)
    visit.screenshot(tmp_path / f"{name[:2]}_demo.png")
    controls = demo.locator(".course-controls > .widget-inline-hbox")
    assert controls.count() >= 2
    for control in controls.all():
        move(control, "Home")
        low = picture(demo)
        move(control, "End")
        assert picture(demo, partial(ne, low)) != low, control.inner_text()
    demo.get_by_role("button", name="Reset").press("Enter")
    assert picture(demo, partial(eq, first)) == first


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


def use_playground(visit, tmp_path):
    """Run, change a setting while it runs, pause, step, reset: the panel follows each of them."""
    panel = show(visit, "Playground()", ".course-playground")
    run, pause, step, reset = (
        panel.get_by_role("button", name=name) for name in ("Run", "Pause", "Step", "Reset")
    )
    depth = panel.locator(".playground-depth select").first
    chosen, start = depth.input_value(), picture(panel)
    run.click()
    wait_for_steps(visit, 50)
    visit.screenshot(tmp_path / "16_runs.png")
    depth.select_option("8")  # both start anew, and go on
    wait_for_steps(visit, 0, 40)
    wait_for_steps(visit, 50)
    pause.click()
    paused = picture(panel), steps(visit)
    visit.page.wait_for_timeout(1000)
    assert (picture(panel), steps(visit)) == paused
    step.press("Enter")
    wait_for_steps(visit, max(paused[1]) + 1, max(paused[1]) + 1)
    reset.press("Space")
    wait_for_steps(visit, 0, 0)
    depth.select_option(chosen)
    assert picture(panel, partial(eq, start)) == start
