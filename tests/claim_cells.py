"""The cells that show what is claimed: `python tests/claim_cells.py` notes that in their metadata."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from notebook_links import NOTEBOOKS_FOLDER, level

from course_utils.claims import Claim, claims


@cache
def notebook(number: str) -> tuple[Path, NotebookNode]:
    (path,) = NOTEBOOKS_FOLDER.glob(f"{number}_*.ipynb")
    return path, nbformat.read(path, as_version=4)


def section(cells: list[NotebookNode], heading: str) -> list[NotebookNode]:
    """Return the cells from this heading to the next one of its level or above."""
    starts = [i for i, cell in enumerate(cells) if re.match(rf"#+ {re.escape(heading)}(\n|$)", cell.source)]
    if len(starts) != 1:
        return []
    first = starts[0]
    ends = (i for i in range(first + 1, len(cells)) if 0 < level(cells[i]) <= level(cells[first]))
    return cells[first : next(ends, len(cells))]


def outputs(cell: NotebookNode) -> str:
    """Return all that a code cell prints or shows as text."""
    parts = [output.get("text", "") for output in cell.get("outputs", [])]
    parts += [
        text for o in cell.get("outputs", []) for text in o.get("data", {}).values() if isinstance(text, str)
    ]
    return "\n".join(part for part in parts if len(part) < 50_000)  # pictures are longer


def holds(cell: NotebookNode, claim: Claim) -> bool:
    """Return whether a cell shows a claim where its kind of evidence says so."""
    if claim.evidence == "measured":
        return claim.shows in outputs(cell)
    if claim.evidence == "asserted":
        return cell.cell_type == "code" and claim.shows in cell.source
    return cell.cell_type == "markdown" and claim.shows in cell.source


def showing(claim: Claim) -> Iterator[NotebookNode]:
    """Yield the cells at a claim's place that show it."""
    number, _, heading = claim.place.partition("#")
    cells = section(notebook(number)[1].cells, heading)
    yield from (cell for cell in cells if holds(cell, claim))


def main() -> None:
    found: dict[tuple[str, str], list[str]] = {}
    for claim in claims():
        cell = next(showing(claim), None)
        if cell is None:
            print(f"{claim.id}: nothing under {claim.place} shows {claim.shows!r}")
        else:
            found.setdefault((claim.place[:2], cell.id), []).append(claim.id)
    for path in sorted(NOTEBOOKS_FOLDER.glob("*.ipynb")):
        _, content = notebook(path.name[:2])
        for cell in content.cells:
            cell.metadata.pop("claims", None)
            if shown := found.get((path.name[:2], cell.id)):
                cell.metadata["claims"] = shown
        nbformat.write(content, path)


if __name__ == "__main__":
    main()
