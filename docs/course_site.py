"""Turns the stored notebooks into what Sphinx reads: `make site` writes it to build/source, and executes nothing.

Answers to predictions are folded, exercises get their hints and solutions, demos pictures for some of their
settings, figures a text for those who do not see them. All of it is computed from the notebooks, the README's
tables and the package.
"""

import base64
import html
import inspect
import io
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from PIL import Image
from playwright.sync_api import sync_playwright
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from sphinx.application import Sphinx
from sphinx.config import Config

import demo_pictures
from browser import FLAGS, find_chromium
from course_utils import claims
from course_utils.exercises.asking import Choice, Function, Number, Open, Question
from course_utils.exercises.questions import find

HERE = Path(__file__).parent
ROOT = HERE.parent
PICTURES = ROOT / "build" / "pictures"
SET_UP = re.compile(r"^(import|from) .*plotting\.use_course_style\(\)", re.DOTALL)
GUESS = re.compile(r"^(guess_\w+) = \.\.\.  # your guess: (.*)$", re.MULTILINE)
CHECK = re.compile(r'^check\("(\d\d\.\d+)"', re.MULTILINE)
DEMO = re.compile(r"^demos\.(\w+)_demo\(\)$", re.MULTILINE)
FIGURE = re.compile(r"^figure, sentence = demos\.\w+_figure\(", re.MULTILINE)
ROW = re.compile(r"^\| \[(\d\d)([^\]]*)\]\(notebooks/([^)]*)\.ipynb\) \| (.*) \| (\d+) \|$", re.MULTILINE)
PART = re.compile(r"^\*\*(\w+)\.\*\* (.*)\n\n((?:\|.*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A row of the README's tables: a notebook."""

    number: str
    title: str
    name: str
    question: str
    minutes: str


def parts() -> Iterator[tuple[str, str, list[Page]]]:
    """Yield the parts of the course: name, sentence, and the notebooks of the README's table."""
    for name, sentence, table in PART.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if pages := [Page(number, title.strip(), *rest) for number, title, *rest in ROW.findall(table)]:
            yield name, sentence, pages


def slug(heading: str) -> str:
    """Return the anchor of a heading that JupyterLab would give it, for links are written for JupyterLab."""
    return heading.replace(" ", "-")


def raw(text: str) -> str:
    """Return Markdown that gives this HTML as it stands."""
    return f"`````{{raw}} html\n{text}\n`````"


def fold(summary: str, body: str, kind: str = "") -> str:
    """Return HTML that is folded until its summary is clicked."""
    return f'<details class="course-fold {kind}"><summary>{summary}</summary>\n{body}\n</details>'


def prose(text: str) -> str:
    """Return a sentence as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


EXERCISES = "Numbers and choices are checked here, all others in the notebook; hints and solutions are folded."


# figures


TEX = {r"\\frac(\w)(\w)": r"\1/\2", r"\\(sqrt|cdot|times|approx|le|ge|to)\b *": lambda m: TEX_SIGNS[m[1]]}
TEX_SIGNS = {"sqrt": "√", "cdot": "·", "times": "×", "approx": "≈", "le": "≤", "ge": "≥", "to": "→"}


def spoken(markdown: str) -> str:
    """Return Markdown as plain text, and the simplest of TeX with it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    for pattern, sign in TEX.items():
        text = re.sub(pattern, sign, text)
    return " ".join(re.sub(r"[$*`{}]|\\[,;!]|\\(?=[a-zA-Z])|\\text", "", text).split())


def how_to_read(cells: list[NotebookNode]) -> str:
    """Return what the text beside a figure says of reading it, as far as the question what would refute it."""
    for cell in cells:
        found = re.search(r"How to read[^:]*: (.*?)(\*\*We would be|$)", cell.source, re.DOTALL)
        if cell.cell_type == "markdown" and found:
            return spoken(found[1])
    return ""


def alternative(output: NotebookNode, beside: list[NotebookNode]) -> str:
    """Return the text for a picture: its titles and axes, as stored beside it, and how to read it."""
    axes = re.findall(r"^\* (.*) \[(.*), \w+; (.*), \w+\]", output.data.get("text/plain", ""), re.MULTILINE)
    titles = list(dict.fromkeys(title for title, *_ in axes if title != "no title"))
    first = output.data.get("text/plain", "Figure").partition("\n")[0]
    text = f"{'; '.join(titles)}. {first}." if titles else f"{first}."
    return " ".join([spoken(text), *filter(None, [how_to_read(beside)])])


def save(picture: Image.Image, name: str) -> str:
    """Write a picture with few colours as a small file without loss, and return its address."""
    path = PICTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path, lossless=True, quality=60, method=4)
    return name


def figure(output: NotebookNode, name: str, beside: list[NotebookNode]) -> str:
    """Write an output's picture, and return HTML that shows it in the size that the notebook gives it."""
    kind = next(kind for kind in output.data if kind.startswith("image/"))
    picture = Image.open(io.BytesIO(base64.b64decode(output.data[kind])))
    width = output.metadata.get(kind, {}).get("width", picture.width)
    sides = f'width="{width}" height="{round(width * picture.height / picture.width)}"'
    alt = html.escape(alternative(output, beside))
    return f'<img class="course-figure" src="{save(picture, name)}" alt="{alt}" {sides} loading="lazy">'


# cells


def guess_form(source: str) -> str:
    """Return inputs for the guesses of a cell."""
    return "\n".join(
        f'<p class="course-guess"><label>Your guess: {prose(text)} '
        f'<input data-guess="{name}" inputmode="decimal" autocomplete="off" size="10"></label></p>'
        for name, text in GUESS.findall(source)
    )


def show_guesses(cell: NotebookNode) -> None:
    """Mark the places in a comparison's table where the page shows what its reader has guessed."""
    names = iter(list(dict.fromkeys(re.findall(r"\bguess_\w+", cell.source))))
    for output in cell.outputs:
        lines = output.get("data", {}).get("text/markdown", "").split("\n")
        if "| you" in lines[0].replace("  ", " "):
            place = [part.strip() for part in lines[0].split("|")].index("you")
            for row, line in enumerate(lines):
                parts_ = line.split("|")
                if len(parts_) > place and parts_[place].strip() == "–" and (name := next(names, None)):
                    parts_[place] = f' <span class="course-guessed" data-guess="{name}">–</span> '
                    lines[row] = "|".join(parts_)
            output.data["text/markdown"] = "\n".join(lines)


def code(source: str) -> str:
    """Return Python as HTML, in the colours of the other cells."""
    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="highlight"))


def solution(question: Question) -> str:
    """Return the solution of a question as HTML."""
    body = f"<p>{prose(question.solution)}</p>"
    if isinstance(question, Function):
        body += code(textwrap.dedent(inspect.getsource(question.right)))
    if isinstance(question, Open):
        body += f"<p>{prose(question.because)}</p>"
    return body


def exercise(number: str, source: str) -> str:
    """Return what answers an exercise without a kernel: a check of numbers and choices, hints, the solution."""
    question, form = find(number), ""
    if isinstance(question, Number):
        told = [(question.answer, question.because), *question.mistakes]
        data = {"told": told, "tolerance": question.tolerance, "hint": question.hints[0]}
        data = html.escape(json.dumps(data, ensure_ascii=False))
        form = (
            f'<form class="course-check" data-check="{data}"><label>Your answer to {number}: '
            '<input inputmode="decimal" autocomplete="off" size="12"></label> <button>Check</button> '
            '<span role="status"></span></form>'
        )
    elif isinstance(question, Choice):
        form = "".join(fold(f"“{option}”?", f"<p>{prose(told)}</p>") for option, told in question.options.items())
    elif not isinstance(question, Open):
        form = code(source)
    folded = [*zip(("Hint 1", "Hint 2"), (f"<p>{prose(hint)}</p>" for hint in question.hints), strict=True)]
    folded.append(("Solution", solution(question)))
    return form + "\n".join(fold(f"{name} <span>for {number}</span>", body) for name, body in folded)


def prepared(cell: NotebookNode, name: str, beside: list[NotebookNode]) -> NotebookNode | None:
    """Return a code cell as the site shows it, None for one that is of no use there."""
    cell.metadata = NotebookNode(tags=[], mystnb=NotebookNode())
    if found := CHECK.search(cell.source):
        return new_markdown_cell(raw(exercise(found[1], cell.source)))
    if found := DEMO.search(cell.source):
        return new_markdown_cell(raw(demo_pictures.demo_html(found[1], PICTURES / "demos")))
    if GUESS.match(cell.source):
        return new_markdown_cell(raw(guess_form(cell.source)))
    if cell.source.startswith("from course_utils.exercises import check") or cell.source == "tally()":
        return None
    if cell.source == "Browser()":
        return new_markdown_cell("[All claims in one table, with filters](claims.md)")
    if SET_UP.match(cell.source):
        cell.metadata.tags.append("hide-input")
        cell.metadata.mystnb.code_prompt_show = "Show what this page imports"
        cell.metadata.mystnb.code_prompt_hide = "Hide what this page imports"
    show_guesses(cell)
    cell.outputs = [out for out in cell.outputs if out.get("data", {}).get("text/plain", "no data") != ""]
    for place, output in enumerate(cell.outputs):
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            output.data = {"text/html": figure(output, f"figures/{name}-{place}.webp", beside)}
            output.metadata = {}
    return cell


def cells_of(page: Page, part: str) -> Iterator[NotebookNode]:
    """Yield the cells of a page."""
    cells = nbformat.read(ROOT / "notebooks" / f"{page.name}.ipynb", as_version=4).cells
    place = f"{part} · notebook {page.number}, {page.title} · {page.minutes} minutes"
    heading, _, rest = cells[0].source.partition("\n")
    cells[0].source = f'{heading}\n\n{raw(f"<p class=course-place>{place}</p>")}\n{rest}'
    for index, cell in enumerate(cells):
        hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden")
        if cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
            continue
        if FIGURE.search(cell.source) and any(DEMO.search(later.source) for later in cells[index + 1 : index + 4]):
            continue  # the demo begins with the same picture
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"Replace the dots and run the cell: `check` .*", EXERCISES, cell.source)
            yield cell
        elif cell := prepared(cell, f"{page.number}-{index}", [*cells[index - 1 : index], *cells[index + 1 :][:1]]):
            if hidden and cell.cell_type == "code":
                cell.metadata.tags.append("hide-output")
                cell.metadata.mystnb.update(code_prompt_show="Show the answer", code_prompt_hide="Hide the answer")
            yield cell


# pages


def table_of(pages: list[Page]) -> str:
    """Return a part's notebooks as a table in Markdown, and its place in the navigation."""
    rows = [f"| [{p.number} {p.title}]({p.name}.ipynb) | {p.question} | {p.minutes} |" for p in pages]
    return "\n".join(["| notebook | question | minutes |", "|:--|:--|--:|", *rows])


def index() -> str:
    """Return the first page."""
    text, shown = (HERE / "index.md").read_text(encoding="utf-8"), []
    for part, sentence, pages in parts():
        entries = "\n".join(f"{p.number} {p.title} <{p.name}>" for p in pages)
        tree = f"```{{toctree}}\n:hidden:\n:caption: {part}\n\n{entries}\n```"
        shown.append(f"## {part}\n\n{sentence}\n\n{table_of(pages)}\n\n{tree}")
    return text.replace("{{parts}}", "\n\n".join(shown))


def claims_page() -> str:
    """Return the page with all claims and the filters over them."""
    files = {page.number: f"{page.name}.ipynb" for *_, pages in parts() for page in pages}
    rows, menus = claims.claims(), {"document": claims.DOCUMENTS, "verdict": {v: v for v in claims.VERDICTS}}
    form = ""
    for menu, options in menus.items():
        entries = "".join(f'<option value="{key}">{name}</option>' for key, name in options.items())
        form += f'<label>{menu} <select name="{menu}"><option value="">all</option>{entries}</select></label> '
    form += '<label>text <input name="text" type="search" autocomplete="off"></label> <output></output>'
    return f"""# What five texts say, and what holds

Five documents that everybody reads first hold {len(rows)} statements that can be checked. S0 is the thread, S1 the
overview, S2 the article, S3 the notes, S4 the post; [notebook 22](22_what_the_sources_say.ipynb) says which they are,
counts them and shows how they go wrong. The last column leads to the evidence.

{raw(f'<form class="course-filter" hidden>{form}</form>')}

{claims.as_table(rows, files)}
"""


def card_page() -> str:
    """Return the card of notebook 19 as a page to print: its first section, and the diagram."""
    [page] = (page for *_, pages in parts() for page in pages if page.number == "19")
    cells = nbformat.read(ROOT / "notebooks" / f"{page.name}.ipynb", as_version=4).cells
    texts = [cell for cell in cells if cell.metadata.get("slideshow", {}).get("slide_type") != "notes"]
    texts = [cell.source for cell in texts if cell.cell_type == "markdown"]
    first = next(k for k, text in enumerate(texts) if re.match("## .*one minute", text))
    after = next(k for k, text in enumerate(texts) if text.startswith("## ") and k > first)
    table = next(k for k, text in enumerate(texts) if "\n|" in text and k > first)
    calls = re.sub(r"^## .*\n+|[^.]*:$", "", texts[first])  # but for the sentence that leads to a cell
    code = re.search(r"```python\n.*?\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    place, diagram = next((k, c) for k, c in enumerate(cells) if "DIAGRAM.items()" in c.source and c.outputs)
    picture = figure(diagram.outputs[0], "figures/card.webp", cells[place + 1 : place + 2])
    picture = raw(picture.replace(' loading="lazy"', ""))
    return "\n\n".join(["# The card", CARD, calls, code, *texts[table:after], picture])


CARD = """The first minute of [notebook 19](19_choosing_an_initialization.ipynb), which has the evidence, and its diagram:
what to do on Monday."""


# Sphinx


def write(path: Path, text: str) -> None:
    """Write a file unless it holds just this, so that Sphinx reads only what has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def prepare(app: Sphinx, config: Config) -> None:
    """Write what Sphinx is to read."""
    source = Path(app.srcdir)
    demo_pictures.draw_all(PICTURES / "demos")
    for part, _, pages in parts():
        for page in pages:
            notebook = nbformat.v4.new_notebook(cells=list(cells_of(page, part)), metadata=KERNEL)
            for place, cell in enumerate(notebook.cells):
                cell.id = f"cell-{place}"
            write(source / f"{page.name}.ipynb", nbformat.writes(notebook))
    write(source / "index.md", index())
    write(source / "claims.md", claims_page())
    write(source / "card.md", card_page())


KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def print_card(app: Sphinx, error: Exception | None) -> None:
    """Write the card as a PDF, too, where there is a Chromium."""
    if error is None and find_chromium():
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = browser.new_page()
            page.goto((Path(app.outdir) / "card.html").as_uri())
            page.wait_for_function("MathJax.startup.promise.then(() => true)")
            page.pdf(path=Path(app.outdir) / "card.pdf", format="A4", print_background=True)
            browser.close()


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx call what prepares the sources."""
    app.add_config_value("course_repository", "", "html")
    app.add_config_value("course_jupyterhub", "", "html")
    app.connect("config-inited", prepare)
    app.connect("build-finished", print_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
