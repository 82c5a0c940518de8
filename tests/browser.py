"""A JupyterLab server and a browser page that remembers what went wrong: what the browser tests share.

with jupyter_lab() as server, open_page(server, "lab/tree/notebooks/04_relu_and_kaiming.ipynb") as visit:
    visit.page.wait_for_selector(".jp-Notebook")
    assert visit.complaints() == []
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import ElementHandle, Locator, Page, sync_playwright

ROOT = Path(__file__).parent.parent
SIZE = {"width": 1280, "height": 720}  # the smallest projector that the slides are made for
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@cache
def find_chromium() -> str | None:
    """Return the path of a Chromium or of Playwright's own, None where there is neither."""
    found = next(filter(None, map(shutil.which, (*NAMES, *MAC))), None)
    if found is None:
        with sync_playwright() as playwright:
            own = playwright.chromium.executable_path
        found = own if Path(own).exists() else None
    return found


@dataclass
class Server:
    """A running JupyterLab: `root` is the temporary copy of the course that it serves and may change."""

    address: str
    root: Path

    def url(self, path: str) -> str:
        return f"{self.address}/{path}?token=browser&reset"  # reset: no page of an earlier visit is opened


def copy_course(root: Path) -> None:
    """Copy what the server shows into `root`, so that saving in the browser leaves the repository alone."""
    (root / "course_utils").mkdir()
    shutil.copy(ROOT / "course_utils" / "style.css", root / "course_utils")
    shutil.copytree(
        ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )


def environment(home: Path) -> dict[str, str]:
    """Return an environment where no setting of the user counts, and the course's lab extension is found."""
    return os.environ | {
        "JUPYTER_PATH": str(ROOT / ".jupyter"),
        "JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
    }


def write_settings(home: Path) -> None:
    """Keep every cell drawn, for Playwright takes what JupyterLab skips for hidden, and ask no questions."""
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }
    for name, values in settings.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))


def wait_until_it_answers(server: Server, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(server.url("api/status"), timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab does not answer at {server.address}:\n{log.read_text()}")


@contextmanager
def jupyter_lab() -> Iterator[Server]:
    """Serve a temporary copy of the course on a free port; kernels import the repository's course_utils."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as probe:
        home, root = Path(folder), Path(folder) / "course"
        root.mkdir()
        copy_course(root)
        write_settings(home)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        server, log = Server(f"http://127.0.0.1:{port}", root), home / "log"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
        options = ["--ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=browser"]
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*command, *options, "--LabApp.news_url=None", "--expose-app-in-browser"],
                cwd=root,
                env=environment(home),
                stdout=stream,
                stderr=stream,
            )
        try:
            wait_until_it_answers(server, process, log)
            yield server
        finally:
            process.terminate()  # the server shuts its kernels down
            process.wait(30)


@dataclass
class Visit:
    """A page, and what went wrong on it since it was opened."""

    page: Page
    errors: list[str] = field(default_factory=list)  # console errors and uncaught exceptions
    failed: list[str] = field(default_factory=list)  # requests without an answer, or with an error status
    outside: list[str] = field(default_factory=list)  # requests to other machines; they are not let through

    def complaints(self) -> list[str]:
        return [*self.errors, *self.failed, *self.outside]

    def screenshot(self, path: Path) -> None:
        """Write a PNG to `path`, in the folder SCREENSHOTS instead where that environment variable is set."""
        folder = Path(os.environ.get("SCREENSHOTS", path.parent))
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / path.name)


def watch(visit: Visit, server: Server) -> None:
    """Write down in `visit` what its page complains of."""

    def request(route):
        if route.request.url.startswith((server.address, "data:", "blob:")):
            route.continue_()
        else:
            visit.outside.append(route.request.url)
            route.abort()

    def failed(request):
        if not request.url.startswith("blob:"):  # a picture replaced before it was shown
            visit.failed.append(f"{request.failure} {request.url}")

    page = visit.page
    page.route("**/*", request)
    page.on("console", lambda m: visit.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("requestfailed", failed)
    page.on("response", lambda r: visit.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)


@contextmanager
def open_page(server: Server, path: str) -> Iterator[Visit]:
    """Open `path` of the server in a fresh headless browser."""
    executable = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            visit = Visit(browser.new_page(viewport=SIZE))
            watch(visit, server)
            visit.page.goto(server.url(path), timeout=60_000)
            yield visit
        finally:
            browser.close()


@contextmanager
def open_slides(server: Server, notebook: str) -> Iterator[Visit]:
    """Open a notebook of the course as slides and wait until they and their formulas are there."""
    with open_page(server, f"rise/notebooks/{notebook}") as visit:
        visit.page.wait_for_selector(".reveal.ready .slides section.present", timeout=60_000)
        visit.page.wait_for_selector("mjx-container", state="attached")
        visit.page.wait_for_load_state("networkidle")
        yield visit


# The horizontal and vertical place of every slide; and how to go there and let the lab extension lay it out.
PLACES = """() => [...document.querySelectorAll('.slides > section')].flatMap((stack, h) =>
    [...stack.querySelectorAll('section')].map((slide, v) => [h, v]))"""
GO = """async ([h, v]) => {
    const slide = document.querySelectorAll('.slides > section')[h].querySelectorAll('section')[v];
    const frame = () => new Promise(requestAnimationFrame);
    for (let i = 0; !slide.classList.contains('present'); i++) {
        if (i > 300) throw new Error(`slide ${h}/${v} does not open`);
        location.hash = `#/${h}/${v}`; // more than once: RISE may just turn to a cell that it selects
        await frame();
    }
    for (let i = 0; i < 4; i++) await frame();
}"""


FRAGMENTS = ".reveal .slides .fragment { opacity: 1 !important; visibility: inherit !important; }"


def walk(visit: Visit) -> Iterator[ElementHandle]:
    """Turn to every slide with all its fragments shown, and yield its element."""
    visit.page.add_style_tag(content=FRAGMENTS)
    for place in visit.page.evaluate(PLACES):
        visit.page.evaluate(GO, place)
        yield visit.page.query_selector(".slides section section.present")


def still_picture(image: Locator, wanted: Callable[[bytes], bool], seconds: float = 30) -> bytes:
    """Return what the browser shows once it stands still and is `wanted`; after so many seconds, any.

    Moves of a control are dealt with in a thread of their own, so that no reply tells when they are.
    """
    end = time.monotonic() + seconds
    while True:
        now = image.screenshot()
        image.page.wait_for_timeout(300)
        if image.screenshot() == now and (wanted(now) or time.monotonic() > end):
            return now
