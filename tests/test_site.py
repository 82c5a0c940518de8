"""The website that `make site` has built: in a browser, from the disk, as a reader meets it.

What it takes is not among the pins, so `make test` skips this; `make site` runs it.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Page, sync_playwright

HOW = "`make site` builds the website, and looks at it by this, in .venv-site"
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason=HOW)
ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
if not (SITE / "index.html").exists():
    pytest.skip(HOW, allow_module_level=True)
if browser.find_chromium() is None:
    pytest.skip("no Chromium found", allow_module_level=True)

NAMES = sorted(path.name for path in SITE.glob("*.html"))
READ = [name for name in NAMES if name != "search.html"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@cache
def parsed(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


# what is written in the files


def test_every_notebook_has_a_page():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"{path.stem}.html" in NAMES
    assert {"index.html", "card.html", "claims.html", "doctor.html", "search.html"} <= set(NAMES)


def test_the_first_page_leads_to_the_pages_for_teachers():
    linked = {tag["href"] for tag in parsed("index.html").article.find_all("a", href=True)}
    assert {"teaching.html", "grading.html", "hub.html", "website.html"} <= linked


def test_the_site_is_small():
    assert sum(path.stat().st_size for path in SITE.rglob("*")) < 40e6


@pytest.mark.parametrize("name", READ)
def test_headings_are_in_order(name: str):
    levels = [int(tag.name[1]) for tag in parsed(name).article.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", READ)
def test_every_picture_is_told_in_words(name: str):
    texts = [picture.get("alt", "") for picture in parsed(name).select("article img")]
    assert all(len(text.split()) > 3 for text in texts), texts
    assert not [text for text in texts if re.search(r"[$\\{}]|frac|no title|no label", text)]


@pytest.mark.parametrize("name", READ)
def test_what_is_folded_is_called_as_it_looks(name: str):
    assert not parsed(name).select("summary[aria-label]")
    assert all(fold.get_text(strip=True) for fold in parsed(name).find_all("summary"))


def broken(name: str) -> list[str]:
    """Return the links of a page to what is not there: files, and places in pages."""
    found = []
    for tag in parsed(name).find_all("a", href=True):
        link = urlsplit(tag["href"])
        if link.scheme:
            continue
        target = unquote(link.path) or name
        place = unquote(link.fragment)
        if not (SITE / target).exists() or (place and not parsed(target).find(id=place)):
            found.append(tag["href"])
    return found


@pytest.mark.parametrize("name", READ)
def test_links_lead_somewhere(name: str):
    assert broken(name) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_taken_from_elsewhere(name: str):
    for tag in parsed(name).find_all(["script", "link", "img", "iframe", "source", "video"]):
        address = tag.get("src") or tag.get("href") or ""
        assert not urlsplit(address).netloc, address
        assert (SITE / urlsplit(address).path).exists()


def test_no_style_sheet_takes_anything_from_elsewhere():
    for path in SITE.rglob("*.css"):
        taken = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]*)", path.read_text(encoding="utf-8"))
        assert not [address for address in taken if urlsplit(address).netloc], path


def test_the_card_is_one_page():
    assert len(re.findall(rb"/Type\s*/Page\b", (SITE / "card.pdf").read_bytes())) == 1


# what a reader sees and does


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser.find_chromium(), args=browser.FLAGS)
        yield running
        running.close()


# Open all that is folded, and wait until it has faded in.
OPEN = """() => {
    document.querySelectorAll('main details').forEach(part => (part.open = true));
    return Promise.all(document.getAnimations().map(fading => fading.finished)).then(() => true);
}"""
# All formulas are set, or there are none.
SET = """!window.MathJax
    || (MathJax.startup?.promise && Promise.resolve(MathJax.startup.promise).then(() => true))"""

# What a thumb would miss.
SMALL = """[...document.querySelectorAll("main :is(button, input, select, summary)")]
    .filter(it => it.checkVisibility() && Math.min(it.offsetWidth, it.offsetHeight) < 24)
    .map(it => it.outerHTML)"""


@pytest.fixture
def visit(chromium):
    """Return a function that opens a page, and holds in the end that nothing went wrong on it."""
    complaints, contexts = [], []

    def open_page(name: str, size: dict = WIDE, scheme: str = "light", formulas: bool = True) -> Page:
        contexts.append(chromium.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        if not formulas:  # as they are written: set, they have very many parts
            page.route(
                "**/tex-svg-full.js*",
                lambda route: route.fulfill(body="MathJax.startup = {promise: Promise.resolve()}"),
            )
        page.on(
            "request",
            lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
        )
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda r: complaints.append(f"{r.failure} {r.url}"))
        page.goto(f"{SITE.as_uri()}/{name}")
        page.wait_for_function(SET)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def faults(page: Page, thorough: bool = True) -> list[str]:
    """Return what axe finds on a page, whatever is folded there opened.

    Contrasts and landmarks take it longest, and are the same on all pages: they are looked at on some.
    """
    page.evaluate(OPEN)
    slow = {rule: {"enabled": thorough} for rule in ("color-contrast", "region")}
    options = {"preload": False, "rules": slow}
    found = axe_playwright.Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:200]}" for rule in found for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", READ)
def test_axe_finds_nothing(visit, name: str):
    assert faults(visit(name, formulas=False), thorough=False) == []


@pytest.mark.parametrize("name", ["index.html", "02_one_over_sqrt_n.html", "claims.html", "card.html"])
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["light", "dark"])
def test_contrasts_and_landmarks(visit, name: str, size: dict, scheme: str):
    assert faults(visit(name, size, scheme, formulas=False)) == []


def test_axe_finds_nothing_in_formulas(visit):
    assert faults(visit("card.html")) == []
    assert faults(visit("15_time.html"), thorough=False) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_as_wide_as_a_telephone_and_its_formulas_are_right(visit, name: str):
    page = visit(name, NARROW)
    assert not page.locator("mjx-merror, [data-mjx-error]").count()
    page.evaluate(OPEN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(SMALL) == []


def test_the_first_page_is_there_within_a_second(visit):
    page = visit("index.html")
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 1000


def test_a_folded_answer_opens_by_the_keyboard_and_shows_the_guess(visit):
    page = visit("02_one_over_sqrt_n.html")
    page.locator("[data-guess=guess_fourth]").first.fill("3")
    place = page.locator(".course-guessed[data-guess=guess_fourth]")
    assert not place.is_visible()
    page.locator("summary", has_text="Show the answer").first.press("Enter")
    assert place.is_visible()
    assert place.inner_text() == "3"
    page.reload()
    assert page.locator("input[data-guess=guess_fourth]").input_value() == "3"


def test_answers_open_where_no_script_runs(chromium):
    context = chromium.new_context(viewport=NARROW, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/02_one_over_sqrt_n.html")
    for words in ("Show the answer", "Solution"):
        summary = page.locator("summary", has_text=words).first
        summary.press("Enter")
        assert summary.locator("xpath=following-sibling::*").first.is_visible()
    assert not page.locator(".course-check:visible, .course-guess:visible").count()
    context.close()


def test_an_exercise_says_what_is_right_and_names_a_mistake(visit):
    page = visit("02_one_over_sqrt_n.html")
    form = page.locator(".course-check").first
    for answer, said in (
        ("1/20", "Right."),
        ("0,05", "Right."),
        ("−1,000", "-1000 is not it"),
        ("0.0025", "Not yet."),
        ("7", "7.000 is not it"),
        ("x", "A number"),
    ):
        form.locator("input").fill(answer)
        form.locator("input").press("Enter")
        assert said in form.locator("[role=status]").inner_text()
    hint = page.locator("details.course-fold").first
    hint.locator("summary").press("Enter")
    assert len(hint.locator("p").inner_text().split()) > 3


DEMOS = [name for name in READ if "course-demo" in (SITE / name).read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_moves_by_the_keyboard(visit, name: str):
    demo = visit(name).locator(".course-demo")
    state = "demo => [demo.querySelector('img').src, demo.querySelector('[role=status]').textContent].join()"
    first, missing = demo.evaluate(state), "demo => demo.querySelector('img').decode()"
    for control in demo.locator("input, select").all():
        seen = set()
        for key in ("Home", "ArrowRight" if control.get_attribute("type") else "ArrowDown", "End"):
            control.press(key)
            demo.evaluate(missing)
            seen.add(demo.evaluate(state))
        assert len(seen) > 1
    demo.get_by_role("button").press("Enter")
    demo.page.wait_for_timeout(50)
    assert demo.evaluate(state) == first


def test_the_filters_of_the_claims(visit):
    page = visit("claims.html")
    rows, count = page.locator("tbody tr:visible"), page.locator(".course-filter output")
    whole = rows.count()
    page.get_by_label("verdict").select_option("false")
    false = rows.count()
    page.get_by_label("document").select_option("S2")
    page.get_by_label("text").fill("variance")
    assert 0 < rows.count() < false < whole
    assert count.inner_text() == f"{rows.count()} of {whole}"


def test_the_search_works_from_the_disk(visit):
    page = visit("search.html?q=kurtosis")
    page.locator("#search-results li a").first.wait_for()
    assert "02_one_over_sqrt_n.html" in " ".join(
        page.locator("#search-results a").evaluate_all("a => a.map(x => x.href)")
    )
