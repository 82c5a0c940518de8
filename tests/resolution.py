"""How small an error each comparison of the course would catch.

`python tests/resolution.py` writes resolution.txt from the tables that the notebooks store. The resolution of
a row is the relative error of its prediction that puts |z| at the limit: limit × standard error / prediction.
In a logarithm an error is a factor on the number or on its rate: what is caught sooner counts.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from course_utils.comparison import Z_LIMIT

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
STORED = Path(__file__).with_name("resolution.txt")
HEADING = re.compile(r"#{1,3} (?:[●○] )?(.*)")
LOGARITHM = re.compile(r"(?<!std of )\b(ln|log10)\b")
CAUGHT = re.compile(r"would catch an error of (\d+) %")


class Row(NamedTuple):
    """A row of a comparison, and the smallest error that it would catch."""

    quantity: str
    resolution: float


class Section(NamedTuple):
    """What a section compares, and the errors that its text says it would catch."""

    rows: list[Row]
    said: list[float]


def resolution(quantity: str, predicted: float, error: float) -> float:
    """Return the smallest relative error of a prediction that |z| would show."""
    sizes = [abs(predicted)]
    if logarithm := LOGARITHM.search(quantity):
        sizes.append({"ln": 1.0, "log10": 1 / math.log(10)}[logarithm[1]])
    return Z_LIMIT * error / max(sizes)


def compared(cell: NotebookNode) -> Iterator[Row]:
    """Yield the rows that a cell compares, but for predictions of 0, which have no relative error."""
    texts = [output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", ())]
    for text in texts:
        if text.startswith("| quantity |"):
            header, _, *body = ([*map(str.strip, line[1:-1].split(" | "))] for line in text.split("\n"))
            for values in body:
                row = dict(zip(header, values, strict=True))
                quantity = re.sub(r"\\(.)", r"\1", row["quantity"])
                predicted, error = float(row["predicted"]), row["standard error"].replace("exact", "0")
                if abs(float(row["z"])) <= Z_LIMIT and predicted:
                    yield Row(quantity, resolution(quantity, predicted, float(error)))


def sections(cells: list[NotebookNode]) -> dict[str, Section]:
    """Return what each section of a notebook compares, by its heading."""
    found: dict[str, Section] = defaultdict(lambda: Section([], []))
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = first[1] if (first := HEADING.match(cell.source)) else heading
            found[heading].said.extend(float(text) / 100 for text in CAUGHT.findall(cell.source))
        found[heading].rows.extend(compared(cell))
    return {heading: section for heading, section in found.items() if section.rows}


def report() -> str:
    """Return all rows, the coarsest first, under how many of them would catch which error."""
    rows = []
    for path in NOTEBOOKS:
        for heading, section in sections(nbformat.read(path, as_version=4).cells).items():
            rows += [
                (row.resolution, f"{path.stem[:2]}  {row.quantity}  ({heading})") for row in section.rows
            ]
    rows.sort(key=lambda row: -row[0])
    shares = [sum(found <= limit for found, _ in rows) for limit in (0.01, 0.05, 0.2)]
    words = "Of {} comparisons, {} would catch an error of 1 %, {} one of 5 %, {} one of 20 %.\n"
    lines = [f"{100 * found:6.2g} %  {text}" for found, text in rows]
    return "\n".join([words.format(len(rows), *shares), *lines, ""])


if __name__ == "__main__":
    STORED.write_text(report(), encoding="utf-8")
    print(report())
