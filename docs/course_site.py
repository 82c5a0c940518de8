"""Turns the stored notebooks into what Sphinx reads; `make site` has it written to build/source.

No notebook is executed. Answers to predictions are folded, guesses get a place to be written down, exercises
a check, hints and solutions, demos pictures for some of their settings, figures a text for those who do not
see them. All of it is computed from the notebooks, the README's tables and the package.
"""

import html
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import demo_pictures
import nbformat
from browser import FLAGS, find_chromium
from figures import PICTURES, figure
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pages import ROOT, Page, beside, card_page, claims_page, index, parts, raw
from playwright.sync_api import sync_playwright
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.config import Config

from course_utils.exercises.asking import Choice, Function, Number, Open, Question
from course_utils.exercises.questions import find

SET_UP = re.compile(r"^(import|from) .*plotting\.use_course_style\(\)", re.DOTALL)
GUESS = re.compile(r"^(guess_\w+) = \.\.\.  # your guess: (.*)$", re.MULTILINE)
CHECK = re.compile(r'^check\("(\d\d\.\d+)"', re.MULTILINE)
DEMO = re.compile(r"^demos\.(\w+)_demo\(\)$", re.MULTILINE)
FIGURE = re.compile(r"^figure, sentence = demos\.\w+_figure\(", re.MULTILINE)


def slug(heading: str) -> str:
    """Return the anchor of a heading that JupyterLab would give it, for links are written for JupyterLab."""
    return heading.replace(" ", "-")


def fold(summary: str, body: str, kind: str = "") -> str:
    """Return HTML that is folded until its summary is clicked."""
    return f'<details class="course-fold {kind}"><summary>{summary}</summary>\n{body}\n</details>'


def prose(text: str) -> str:
    """Return a sentence as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


# No `inputmode="decimal"`: the keys of an iPhone would then lack the minus, the slash and the e.
TYPED = 'autocomplete="off" autocapitalize="off" spellcheck="false"'
RUN = '<a href="index.html#run-it-yourself">run it yourself</a>'
CARD = '<a href="card.html">the card, to print</a>'
# What notebooks say of JupyterLab, and what holds here.
REWORDED = {
    r"Replace the dots and run the cell: `check` .*": (
        "Numbers and choices are checked here, all others in the notebook; hints and solutions are folded."
    ),
    r"over the dots in cells like the next one": "into boxes like the next one",
    r"if you wrote one over the dots": "if you wrote one down",
    r"over the dots of its cell": "into its box",
    r"before you run the next cell": "before you read on",
    r"run the cell, or click on the three dots": "click on “Show the answer”",
    r" \(JupyterLab opens the notebook at the first click[^)]*\)": "",
    r"The browser below needs a running kernel: [^.]*\. Without one, the five tables behind it": (
        "There is one table with filters; the five behind it"
    ),
    r"The static figure is for readers without a kernel; the sliders below redraw it": (
        "The controls below change the figure"
    ),
    r"\[([^\]]*)\]\(\.\./[^)]*\)": r"\1",  # what is linked there is no page
}


# cells


def guess_form(source: str) -> str:
    """Return inputs for the guesses of a cell."""
    return "\n".join(
        f'<p class="course-guess"><label>Your guess: {prose(text)} '
        f'<input data-guess="{name}" {TYPED} size="10"></label></p>'
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
    """Return what answers an exercise without a kernel: a check of numbers and choices, hints, solution."""
    question, form = find(number), ""
    if isinstance(question, Number):
        told = [(question.answer, question.because), *question.mistakes]
        data = {"told": told, "tolerance": question.tolerance, "hint": question.hints[0]}
        data = html.escape(json.dumps(data, ensure_ascii=False))
        form = (
            f'<form class="course-check" data-check="{data}"><label>Your answer to {number}: '
            f'<input {TYPED} size="12"></label> <button>Check</button> '
            '<span role="status"></span></form>'
        )
    elif isinstance(question, Choice):
        for option, told in question.options.items():
            verdict = "Right." if option == question.answer else "Not yet."
            form += fold(f"“{option}”?", f"<p>{verdict} {prose(told)}</p>")
    elif not isinstance(question, Open):
        form = code(source)
    folded = [*zip(("Hint 1", "Hint 2"), (f"<p>{prose(hint)}</p>" for hint in question.hints), strict=True)]
    folded.append(("Solution", solution(question)))
    return form + "\n".join(fold(f"{name} <span>for {number}</span>", body) for name, body in folded)


def prepared(cell: NotebookNode, name: str, beside: list[NotebookNode], section: str) -> NotebookNode | None:
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
            output.data = {"text/html": figure(output, f"figures/{name}-{place}.webp", beside, section)}
            output.metadata = {}
    return cell


def cells_of(page: Page, part: str) -> Iterator[NotebookNode]:
    """Yield the cells of a page."""
    cells = nbformat.read(ROOT / "notebooks" / f"{page.name}.ipynb", as_version=4).cells
    kicker = f'<a href="index.html#{part.lower()}">{part}</a> · notebook {page.number}, {page.title}'
    kicker += f" · {page.minutes} minutes · {RUN}" + f" · {CARD}" * (page.number == "19")
    heading, _, rest = cells[0].source.partition("\n")
    cells[0].source = f"{heading}\n\n{raw(f'<p class=course-place>{kicker}</p>')}\n{rest}"
    section = page.title
    for place, cell in enumerate(cells):
        hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden")
        if cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
            continue
        if FIGURE.search(cell.source) and any(
            DEMO.search(later.source) for later in cells[place + 1 : place + 4]
        ):
            continue  # the demo begins with the same picture
        if cell.cell_type == "markdown":
            section = next(iter(re.findall(r"^#+ (.*)", cell.source, re.MULTILINE)), section)
            for words, here in REWORDED.items():
                cell.source = re.sub(words, here, cell.source)
            yield cell
            continue
        beside = [*cells[place - 1 : place], *cells[place + 1 : place + 2]]
        shown = prepared(cell, f"{page.number}-{place}", beside, section)
        if shown and hidden and shown.cell_type == "code":
            shown.metadata.tags.append("hide-output")
            shown.metadata.mystnb.update(
                code_prompt_show="Show the answer", code_prompt_hide="Hide the answer"
            )
        if shown:
            yield shown


# Sphinx


def write(path: Path, text: str) -> None:
    """Write a file unless it holds just this, so that Sphinx reads only what has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def prepare(app: Sphinx, config: Config) -> None:
    """Write what Sphinx is to read. Raises: ValueError where REWORDED has what no notebook says any more."""
    said = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    if gone := [words for words in REWORDED if not re.search(words, said)]:
        raise ValueError(f"no notebook says {gone}: correct or remove them in {__file__}")
    source = Path(app.srcdir)
    demo_pictures.draw_all(PICTURES / "demos")
    for part, _, pages in parts():
        for page in pages:
            notebook = nbformat.v4.new_notebook(cells=list(cells_of(page, part)), metadata=KERNEL)
            for place, cell in enumerate(notebook.cells):
                cell.id = f"cell-{place}"
            write(source / f"{page.name}.ipynb", nbformat.writes(notebook))
    write(source / "index.md", index(config.course_repository))
    write(source / "claims.md", claims_page())
    write(source / "card.md", card_page())
    write(source / "doctor.md", (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8"))
    for name, text in beside(source):
        write(source / f"{name}.md", text)


KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def mend(app: Sphinx, name: str, template: str, context: dict, tree: object) -> None:
    """Make a table's empty corner an ordinary cell, for it heads nothing; call folds what they look like."""
    body = re.sub(r"<th([^>]*)>(?:<p></p>)?</th>", r"<td\1></td>", context.get("body", ""))
    context["body"] = re.sub(r"<summary aria-label=[^>]*>", "<summary>", body)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write the card as a PDF, too, where there is a Chromium; remove what only the theme's authors need."""
    for path in Path(app.outdir).rglob("*.map"):
        path.unlink()
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
    app.connect("html-page-context", mend)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
