"""How many minutes a reader needs for a notebook, for its sections, and for those of the short path.

`python reading_time.py notebooks/04*.ipynb` prints them. A section with ○ in its heading may be skipped, one
with ● belongs to the short path; each mark holds until the next heading of its level or above.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

WORDS, LINES = 130, 8  # a minute
TABLE, FIGURE = 0.5, 1.0  # minutes
HEADING = re.compile(r"^(#+) ([●○]?)")
ADDRESS = re.compile(r"(?<=\])\([^)]*\)")


def minutes(cell: NotebookNode) -> float:
    """Return the minutes for a cell and what it shows; notes for the lecturer take a reader none."""
    if cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
        return 0.0
    if cell.cell_type == "markdown":
        words = sum(bool(re.search(r"\w", word)) for word in ADDRESS.sub("", cell.source).split())
        return words / WORDS + TABLE * len(re.findall(r"^\|[:|-]+\|$", cell.source, re.MULTILINE))
    lines = sum(1 for line in cell.source.splitlines() if line.strip())
    shown = [output.get("data", {}) for output in cell.outputs]
    tables = sum("text/markdown" in data or "text/html" in data for data in shown)
    figures = sum(any(kind.startswith("image/") for kind in data) for data in shown)
    return lines / LINES + TABLE * tables + FIGURE * figures


def sections(notebook: NotebookNode) -> Iterator[tuple[str, str, float]]:
    """Yield (heading, mark, minutes) of each section; a mark passes on to what stands below it."""
    marks: list[tuple[int, str]] = []  # (level, mark) of the headings above
    heading, mark, total = "", "", 0.0
    for cell in notebook.cells:
        found = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if found:
            if heading:
                yield heading, mark, total
            marks = [(level, above) for level, above in marks if level < len(found[1])]
            marks.append((len(found[1]), found[2]))
            own = [m for _, m in marks if m]
            heading, mark, total = cell.source.splitlines()[0], own[-1] if own else "", 0.0
        total += minutes(cell)
    yield heading, mark, total


def needed(notebook: NotebookNode) -> float:
    """Return the minutes for all that may not be skipped."""
    return sum(time for _, mark, time in sections(notebook) if mark != "○")


def short(notebook: NotebookNode) -> float:
    """Return the minutes for what belongs to the short path."""
    return sum(time for _, mark, time in sections(notebook) if mark == "●")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        course = nbformat.read(name, as_version=4)
        for title, sign, time in sections(course):
            print(f"{time:6.1f} {sign:1} {title}")
        print(f"{needed(course):6.1f} without ○, {short(course):.1f} of the short path: {Path(name).stem}\n")
