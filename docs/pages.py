"""The pages beside the notebooks: the first one, claims, card, those for teachers; and the course's parts."""

import html
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from browser import find_chromium
from figures import figure, save
from PIL import Image

from course_utils import claims

HERE = Path(__file__).parent
ROOT = HERE.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| \[(\d\d)([^\]]*)\]\(notebooks/([^)]*)\.ipynb\) \| (.*) \| (\d+) \|$", re.MULTILINE)
BESIDE = re.compile(r"^- \[([^\]]*)\]\(docs/(\w+)\.md\): ", re.MULTILINE)
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
    for name, sentence, table in PART.findall(README):
        if pages := [Page(number, title.strip(), *rest) for number, title, *rest in ROW.findall(table)]:
            yield name, sentence, pages


def raw(text: str) -> str:
    """Return Markdown that gives this HTML as it stands."""
    return f"`````{{raw}} html\n{text}\n`````"


def table_of(pages: list[Page]) -> str:
    """Return a part's notebooks as a table in Markdown, and its place in the navigation."""
    rows = [f"| [{p.number} {p.title}]({p.name}.ipynb) | {p.question} | {p.minutes} |" for p in pages]
    return "\n".join(["| notebook | question | minutes |", "|:--|:--|--:|", *rows])


COLAB = "Colab lacks `course_utils`: in a first cell there, run `%pip install git+{}`; restart if it asks."


def index(repository: str) -> str:
    """Return the first page; with the repository's address, where Colab can open the notebooks."""
    text, sections = (HERE / "index.md").read_text(encoding="utf-8"), []
    for part, sentence, pages in parts():
        entries = "\n".join(f"{p.number} {p.title} <{p.name}>" for p in pages)
        tree = f"```{{toctree}}\n:hidden:\n:caption: {part}\n\n{entries}\n```"
        sections.append(f"## {part}\n\n{sentence}\n\n{table_of(pages)}\n\n{tree}")
    alt, path = re.search(r"!\[(.*)\]\((.*)\)", README).groups()
    with Image.open(ROOT / path) as picture:
        address = save(picture, "figures/overview.webp")
    shown = f'<img class="course-figure" src="{address}" alt="{html.escape(alt)}">'
    places = {"overview": raw(shown), "parts": "\n\n".join(sections), "teaching": teaching()}
    places["colab"] = COLAB.format(repository) if "//github.com/" in repository else ""
    for place, filled in places.items():
        text = text.replace("{{" + place + "}}", filled)
    return text


def teaching() -> str:
    """Return what the README says to teachers, and the place of those pages in the navigation."""
    text = re.search(r"^## Teaching with it\n\n(.*?)\n\n## ", README, re.MULTILINE | re.DOTALL)[1]
    entries = "\n".join(f"{title} <{name}>" for title, name in BESIDE.findall(README))
    tree = f"```{{toctree}}\n:hidden:\n:caption: To teach with it\n\n{entries}\n```"
    return f"## Teach with it\n\n{text.replace('](docs/', '](')}\n\n{tree}"


def beside(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the pages for teachers, name and text; copy the files that they link to beside the sources."""
    for _, name in BESIDE.findall(README):
        text = (HERE / f"{name}.md").read_text(encoding="utf-8").replace("](../notebooks/", "](")
        for words, linked in re.findall(r"\[([^\]]*)\]\((\w+\.(?:py|txt))\)", text):
            if (HERE / linked).exists():
                shutil.copy2(HERE / linked, source)
            else:  # a table that `make sizes` has yet to write
                text = text.replace(f"[{words}]({linked})", words)
        yield name, text


def claims_page() -> str:
    """Return the page with all claims and the filters over them."""
    files = {page.number: f"{page.name}.ipynb" for *_, pages in parts() for page in pages}
    rows, menus = claims.claims(), {"document": claims.DOCUMENTS, "verdict": {v: v for v in claims.VERDICTS}}
    form = ""
    for menu, options in menus.items():
        entries = "".join(f'<option value="{key}">{name}</option>' for key, name in options.items())
        form += (
            f'<label>{menu} <select name="{menu}"><option value="">all</option>{entries}</select></label> '
        )
    documents = ", ".join(f"{key} is {name}" for key, name in claims.DOCUMENTS.items())
    form += '<label>text <input name="text" type="search" autocomplete="off"></label> <output></output>'
    return f"""# What five texts say, and what holds

Five documents that everybody reads first hold {len(rows)} statements that can be checked: {documents}.
[Notebook 22](22_what_the_sources_say.ipynb) says which texts these are, counts the verdicts, and shows how
such statements go wrong. The last column leads to the evidence.

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
    code = re.search(r"```python\n.*?\n```", README, re.DOTALL)[0]
    place, diagram = next((k, c) for k, c in enumerate(cells) if "DIAGRAM.items()" in c.source and c.outputs)
    picture = figure(diagram.outputs[0], "figures/card.webp", cells[place + 1 : place + 2], "The diagram")
    picture = raw(picture.replace(' loading="lazy"', ""))
    link = '<a href="card.pdf">To print: the same as a PDF of one page.</a>' if find_chromium() else ""
    link = raw(f'<p class="course-card">{link}</p>')
    return "\n\n".join(["# The card", CARD, link, calls, code, *texts[table:after], picture])


CARD = """What to do on Monday: the first minute of [notebook 19](19_choosing_an_initialization.ipynb), and
its diagram. The notebook has the evidence."""
