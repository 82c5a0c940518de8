"""The rules on what a notebook says of others: its links, and its row in the map of notebook 00."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

NOTEBOOKS_FOLDER = Path(__file__).parent.parent / "notebooks"

LINK = re.compile(r"\]\(([^()\s]*\.ipynb)(?:#([^()\s]*))?\)")
NUMBERED_LINK = re.compile(r"\[(?:[Nn]otebook )?(\d\d)\b[^\]]*\]\(([^()\s]*\.ipynb)[^()\s]*\)")
# In a text whose numbered links are § already, so that the 05 of "notebooks [04](...) and 05" is found, too.
BARE_NUMBER = re.compile(r"[Nn]otebooks?\s(?:§(?:,? and |,? to |,? or |, ))*(\d\d)\b")
MAX_WORDS = 25
SENTENCE = re.compile(r"^\*\*In one sentence:\*\* (.*)$", re.MULTILINE)


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


COURSE_MAP = prose(nbformat.read(NOTEBOOKS_FOLDER / "00_start_here.ipynb", as_version=4))


def headings(notebook: NotebookNode) -> list[str]:
    return re.findall(r"^#+ .*$", prose(notebook), re.MULTILINE)


def level(cell: NotebookNode) -> int:
    """Return the level of the heading that a cell starts with, 0 without."""
    marks = cell.source.split(" ")[0]
    return len(marks) if cell.cell_type == "markdown" and set(marks) == {"#"} else 0


def anchor(heading: str) -> str:
    """Return what JupyterLab makes of a heading: the text, with a dash for each space."""
    return re.sub(r"^#+ ", "", heading).replace("*", "").replace(" ", "-")


def links(name: str, notebook: NotebookNode) -> Iterator[str]:
    for target, place in LINK.findall(prose(notebook)):
        path = NOTEBOOKS_FOLDER / target
        if not path.exists():
            yield f"there is no {target}"
        elif place and unquote(place) not in map(anchor, headings(nbformat.read(path, as_version=4))):
            yield f"{target} has no heading {place}"


def numbers_are_links(name: str, notebook: NotebookNode) -> Iterator[str]:
    for number, target in NUMBERED_LINK.findall(prose(notebook)):
        if not target.startswith(f"{number}_"):
            yield f"the link {number} leads to {target}"
    for number in BARE_NUMBER.findall(NUMBERED_LINK.sub("§", prose(notebook))):
        yield f"notebook {number} is named without a link"


def stands_in_the_map(name: str, notebook: NotebookNode) -> Iterator[str]:
    """Look for the notebook's title, minutes and sentence, word for word, in its rows of the map."""
    text = prose(notebook)
    sentence = SENTENCE.search(text.rpartition("## Recap")[2])
    title, minutes = text.splitlines()[0].removeprefix("# "), re.search(r"Minutes:\D*(\d+)", text)
    if sentence is None or len(sentence[1].split()) > MAX_WORDS:
        yield f"the Recap has no line **In one sentence:** of at most {MAX_WORDS} words"
        return
    rows = [f"{title} | {minutes[1]}", sentence[1]] if minutes else []
    for row in rows:  # the sentences stand in a table of their own, folded, for they answer the titles
        if f"]({name}) | {row} |\n" not in COURSE_MAP:
            yield f"the map of the course has no row {row}"
