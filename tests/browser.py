"""A JupyterLab server and a browser page that remembers what went wrong: what the browser tests share.

with forked_kernels(), jupyter_lab() as server, open_browser(server) as visit:
    visit.open("lab/tree/notebooks/04_relu_and_kaiming.ipynb")
    visit.page.wait_for_selector(".jp-Notebook")
    assert visit.complaints() == []
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from subprocess import Popen
from urllib.request import Request, urlopen

from playwright.sync_api import Locator, Page, sync_playwright

ROOT = Path(__file__).parent.parent
STYLE = ROOT / "course_utils" / "style.css"
# The smallest projector that the slides are made for.
PAGE_SIDES = re.findall(r"--course-page-(width|height): (\d+);", STYLE.read_text())
SIZE = {side: int(pixels) for side, pixels in PAGE_SIDES}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a route would switch the cache off
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

    def stop_kernels(self) -> None:
        """Stop every kernel, so that the next page starts its own."""
        for session in json.load(urlopen(self.url("api/sessions"), timeout=60)):
            urlopen(Request(self.url(f"api/sessions/{session['id']}"), method="DELETE"), timeout=60).close()


def copy_course(root: Path) -> None:
    """Copy what the server shows into `root`, so that saving in the browser leaves the repository alone."""
    (root / "course_utils").mkdir()
    shutil.copy(STYLE, root / "course_utils")
    shutil.copytree(
        ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )


def environment(home: Path) -> dict[str, str]:
    """Return an environment where no setting of the user counts; JUPYTER_PATH is that of `forked_kernels`."""
    return os.environ | {
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


def find_address(process: Popen, home: Path, seconds: float = 60) -> str:
    """Return the address that the server has found for itself and written down, once it has."""
    written = home / "runtime" / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, ValueError):  # not there yet, or not yet whole
            return f"http://127.0.0.1:{json.loads(written.read_text())['port']}"
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab does not start:\n{(home / 'log').read_text()}")


@contextmanager
def jupyter_lab() -> Iterator[Server]:
    """Serve a temporary copy of the course on a free port; kernels import the repository's course_utils.

    The server chooses the port (0), for one that is chosen for it may be a kernel's by the time it listens.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, root = Path(folder), Path(folder) / "course"
        root.mkdir()
        copy_course(root)
        write_settings(home)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
        command += ["--ip=127.0.0.1", "--IdentityProvider.token=browser"]
        command += ["--LabApp.news_url=None", "--expose-app-in-browser"]
        with (home / "log").open("w") as stream:
            process = Popen(command, cwd=root, env=environment(home), stdout=stream, stderr=stream)
        try:
            yield Server(find_address(process, home), root)
        finally:
            process.terminate()  # the server shuts its kernels down
            process.wait(30)


@dataclass
class Visit:
    """A page of the server, and what went wrong on it since it was opened."""

    page: Page
    server: Server
    errors: list[str] = field(default_factory=list)  # console errors and uncaught exceptions
    failed: list[str] = field(default_factory=list)  # requests without an answer, or with an error status
    outside: list[str] = field(default_factory=list)  # requests to other machines; they are not let through

    def complaints(self) -> list[str]:
        return [*self.errors, *self.failed, *self.outside]

    def open(self, path: str, place: str = "") -> None:
        """Leave the page, with its kernel, for a place in `path` of the server; forget what went wrong.

        In a new tab: a page with many slides may be too busy to be left in half a minute.
        """
        left, self.page = self.page, self.page.context.new_page()
        left.close()
        watch(self)
        self.server.stop_kernels()
        for complaints in (self.errors, self.failed, self.outside):
            complaints.clear()
        self.page.goto(self.server.url(path) + place, timeout=60_000)

    def screenshot(self, name: str) -> None:
        """Write a PNG to the folder SCREENSHOTS where that environment variable is set."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")


def watch(visit: Visit) -> None:
    """Write down in `visit` what its page complains of."""

    def requested(request):
        if not request.url.startswith((visit.server.address, "data:", "blob:")):
            visit.outside.append(request.url)

    def failed(request):
        if not request.url.startswith("blob:"):  # a picture replaced before it was shown
            visit.failed.append(f"{request.failure} {request.url}")

    page = visit.page
    page.on("request", requested)
    page.on("console", lambda m: visit.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("requestfailed", failed)
    page.on("response", lambda r: visit.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("dialog", lambda dialog: dialog.accept())  # a changed notebook may be left


@contextmanager
def open_browser(server: Server) -> Iterator[Visit]:
    """Start a headless browser whose tabs share what they have loaded and compiled."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield Visit(browser.new_context(viewport=SIZE).new_page(), server)
        finally:
            browser.close()


def open_slides(visit: Visit, notebook: str) -> list[str]:
    """Open a notebook of the course as slides, with their formulas; return what collapsed outputs showed."""
    visit.open(f"rise/notebooks/{notebook}")
    visit.page.wait_for_selector(".reveal.ready .slides section.present", timeout=180_000)
    visit.page.wait_for_function(FORMULAS)
    visit.page.wait_for_load_state("networkidle", timeout=60_000)
    visit.page.add_style_tag(content=FRAGMENTS)
    shown = visit.page.evaluate(OPEN_OUTPUTS)
    visit.page.wait_for_selector(DOTS, state="detached")
    return shown


# The first formula is set, or none is left to set.
FORMULAS = """document.querySelector('mjx-container')
    ?? ![...document.querySelectorAll('.jp-RenderedMarkdown')].some(text => text.textContent.includes('$'))"""
# Answers are stored collapsed, but their slides have to fit when they are open.
DOTS = ".jp-OutputPlaceholder .jp-Placeholder-content"
OPEN_OUTPUTS = f"""() => [...document.querySelectorAll('{DOTS}')].map(dots => {{
    dots.click();
    return dots.textContent;
}})"""
FRAGMENTS = ".reveal .slides .fragment { opacity: 1 !important; visibility: inherit !important; }"
# Turn to the slide in the h-th stack at the v-th place, and let the lab extension lay it out.
GO = """async ([h, v]) => {
    const slide = document.querySelectorAll('.slides > section')[h].querySelectorAll('section')[v];
    const frame = () => new Promise(requestAnimationFrame);
    for (let i = 0; !slide.classList.contains('present'); i++) {
        if (i > 300) throw new Error(`slide ${h}/${v} does not open`);
        location.hash = `#/${h}/${v}`; // more than once: RISE may just turn to a cell that it selects
        await frame();
    }
    await frame();
    await frame();
}"""
# Reveal takes much longer to turn a page than the lab extension to lay it out: here slides change places
# without it. The extension waits for the next frame; here it has it at once, for a frame takes the longer
# the more slides there are, and the rules do not look at pixels.
WALK = """() => {
    const found = [], first = document.querySelector('.slides section section.present');
    const frame = window.requestAnimationFrame;
    window.requestAnimationFrame = layOut => void layOut();
    const turn = slide => {
        document.querySelectorAll('.slides .present').forEach(old => old.classList.remove('present'));
        [slide, slide.parentElement].forEach(part => part.classList.add('present'));
        document.dispatchEvent(new Event('slidechanged'));
    };
    const style = document.head.appendChild(document.createElement('style'));
    style.textContent = `.reveal .slides section { display: none !important; }
        .reveal .slides section.present { display: block !important; visibility: visible; }`;
    for (const slide of document.querySelectorAll('.slides section section')) {
        turn(slide);
        found.push(...(RULE)(slide));
    }
    style.remove();
    turn(first);
    window.requestAnimationFrame = frame;
    return found;
}"""


def on_each_slide(visit: Visit, rule: str) -> list:
    """Turn to every slide and return all that the JavaScript function `rule` finds there."""
    return visit.page.evaluate(WALK.replace("RULE", rule))


# A fingerprint of the picture that is shown, once it stands still and is the wanted one; in the end, of any.
STILL = """async (image, { like, unlike, patience }) => {
    const fingerprint = async () => {
        try {
            await image.decode();
            const picture = await (await fetch(image.src)).arrayBuffer();
            return [...new Uint8Array(await crypto.subtle.digest('SHA-256', picture))].join();
        } catch {
            return ''; // it is being replaced
        }
    };
    const wanted = now => now !== unlike && (!like || now === like);
    const end = performance.now() + 1000 * patience;
    for (let before, now = ''; ; before = now) {
        now = await fingerprint();
        if (now && (performance.now() > end || (now === before && wanted(now)))) return now;
        if (performance.now() > end + 5000) throw new Error(`no picture is shown within ${patience} seconds`);
        await new Promise(resolve => setTimeout(resolve, 80));
    }
}"""
PATIENCE = 15.0  # seconds


def still_picture(image: Locator, like: str = "", unlike: str = "") -> str:
    """Return a fingerprint of the picture once it stands still and is `like` that one, or `unlike` it.

    Moves of a control are dealt with in a thread of their own, so that no reply tells when they are.
    """
    return image.evaluate(STILL, {"like": like, "unlike": unlike, "patience": PATIENCE})
