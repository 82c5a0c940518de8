"""How many minutes a reader needs for a notebook, for its sections, and for those of the short path.

`python reading_time.py notebooks/04*.ipynb` prints them. A section with ○ in its heading may be skipped, one
with ● belongs to the short path; each mark holds until the next heading of its level or above.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

WORDS, LINES = 130, 8  # a minute
TABLE, FIGURE = 0.5, 1.0  # minutes
MAX_WORDS = 90  # on a slide, outside tables
EXERCISES = "## Exercises"
HEADING = re.compile(r"^(#+) ([●○]?)")
ADDRESS = re.compile(r"(?<=\])\([^)]*\)")


def words(text: str) -> int:
    """Return how many words a text has, those in formulas and tables included, those in addresses not."""
    return sum(bool(re.search(r"\w", word)) for word in ADDRESS.sub("", text).split())


def running_words(cell: NotebookNode) -> int:
    """Return how many words a text cell has outside its tables."""
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return words("\n".join(line for line in lines if not line.startswith("|")))


def minutes(cell: NotebookNode) -> float:
    """Return the minutes for a cell and what it shows; notes for the lecturer take a reader none."""
    if cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
        return 0.0
    if cell.cell_type == "markdown":
        tables = len(re.findall(r"^\|[:|-]+\|$", cell.source, re.MULTILINE))
        return words(cell.source) / WORDS + TABLE * tables
    lines = sum(1 for line in cell.source.splitlines() if line.strip())
    shown = [output.get("data", {}) for output in cell.outputs]
    tables = sum("text/markdown" in data or "text/html" in data for data in shown)
    figures = sum(any(kind.startswith("image/") for kind in data) for data in shown)
    return lines / LINES + TABLE * tables + FIGURE * figures


def above(cells: list[NotebookNode]) -> list[list[str]]:
    """Return for each cell the headings that it stands under, the widest first."""
    found, open_headings = [], {}  # {level: heading}
    for cell in cells:
        heading = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            level = len(heading[1])
            open_headings = {upper: text for upper, text in open_headings.items() if upper < level}
            open_headings[level] = cell.source.splitlines()[0]
        found.append(list(open_headings.values()))
    return found


def marks(cells: list[NotebookNode]) -> list[str]:
    """Return the mark of each cell, "●", "○" or "", that its section has, or the section around that."""
    signs = ([HEADING.match(heading)[2] for heading in headings] for headings in above(cells))
    return [next(filter(None, reversed(found)), "") for found in signs]


def needed(cells: list[NotebookNode], optional: bool = False) -> float:
    """Return the minutes for all that may not be skipped, or for all that may; exercises state their own."""
    parts = zip(cells, above(cells), marks(cells), strict=True)
    return sum(minutes(c) for c, over, mark in parts if (mark == "○") == optional and EXERCISES not in over)


def short(cells: list[NotebookNode]) -> float:
    """Return the minutes for the short path: its sections, and the opening of a notebook that has any."""
    parts = list(zip(cells, above(cells), marks(cells), strict=True))
    with_path = any(mark == "●" for *_, mark in parts)
    return sum(minutes(c) for c, headings, mark in parts if mark == "●" or (with_path and len(headings) == 1))


def main(paths: list[str]) -> None:
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        times: dict[str, float] = {}
        for cell, headings in zip(cells, above(cells), strict=True):
            times[headings[-1]] = times.get(headings[-1], 0) + minutes(cell)
        for heading, time in times.items():
            print(f"{time:6.1f} {heading}")
        print(f"{needed(cells):6.1f} without ○, {short(cells):.1f} on the short path: {Path(path).stem}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
