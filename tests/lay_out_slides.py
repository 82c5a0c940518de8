"""Divide the notebooks named on the command line into slides that fit the page (`make layout`).

Measures every cell in the browser, chooses the breaks that cost least, and writes the slide types; nothing
else in a notebook changes. A heading starts a slide. A cell that follows on the same slide is a fragment, so
that a prediction can be put to the room before its measurement is shown.
"""

import sys
from pathlib import Path

import nbformat
from browser import SIZE, Visit, jupyter_lab, on_each_slide, open_browser, open_slides
from forked_kernels import forked_kernels
from nbformat import NotebookNode
from notebook_links import level
from reading_time import MAX_WORDS, running_words

PAGE = SIZE["height"] - 70  # pixels of a page that content may take
FULLEST = 1.25  # what the smallest permitted fonts, or figures beside their code, make fit
LIVE = {"Demo": 560, "Playground": 650}  # what is stored as one line is as high as this when it runs
FIGURE = 340

NEW_SLIDE = 2.0
SQUEEZED = 6.0
CODE_AWAY_FROM_ITS_QUESTION = 3.0
READING_AWAY_FROM_ITS_FIGURE = 2.5
TEXT_AWAY_FROM_CODE = 1.0
OVERFULL = 100.0

# Fonts at full size, figures at the height that the costs assume.
NATURAL = f"""
.reveal .slides section section {{ --course-fit: 1 !important; }}
.reveal .slides section section img {{ --course-figure: {FIGURE}px !important; }}
.reveal .course-beside, .reveal .course-alone > .jp-Cell-inputWrapper {{ display: block !important; }}
"""
HEIGHTS = """slide => [...slide.querySelectorAll('.jp-Cell')].map(cell => [
    Number(cell.dataset.windowedListIndex),
    cell.getBoundingClientRect().height + parseFloat(getComputedStyle(cell).marginBottom)])"""


def is_on_slides(cell: NotebookNode) -> bool:
    return cell.metadata.get("slideshow", {}).get("slide_type") not in ("notes", "skip")


def shows(cell: NotebookNode, kind: str) -> bool:
    return any(kind in output.get("data", {}) for output in cell.get("outputs", []))


def live_height(cell: NotebookNode) -> int | None:
    """Return the height that a demo or the playground takes when it runs, None for any other cell."""
    texts = [output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])]
    return next((LIVE[name] for text in texts if (name := text.split(":")[0]) in LIVE), None)


def natural_heights(visit: Visit, notebook: NotebookNode) -> list[float]:
    """Return the height of every cell of the open slides in pixels, demos as if they ran."""
    visit.page.add_style_tag(content=NATURAL)
    measured = dict(on_each_slide(visit, HEIGHTS))
    return [live_height(c) or measured.get(i, 0.0) for i, c in enumerate(notebook.cells)]


def break_cost(before: NotebookNode, cell: NotebookNode) -> float:
    """Return what it costs that `cell` starts a new slide, away from the cell `before`."""
    if cell.cell_type == "code":
        return CODE_AWAY_FROM_ITS_QUESTION if before.cell_type == "markdown" else TEXT_AWAY_FROM_CODE
    if shows(before, "image/png"):
        return READING_AWAY_FROM_ITS_FIGURE
    return TEXT_AWAY_FROM_CODE


def fullness_cost(height: float, words: int) -> float:
    """Return what it costs to have cells of this summed height, with so many words, on one slide."""
    squeeze = max(0.0, height / PAGE - 1) / (FULLEST - 1)
    too_wordy = OVERFULL * words / MAX_WORDS if words > MAX_WORDS else 0.0
    return too_wordy + (squeeze * SQUEEZED if squeeze <= 1 else OVERFULL * squeeze)


def breaks(cells: list[NotebookNode], heights: list[float]) -> set[int]:
    """Return the indices of the cells that start a slide, so that the costs are least."""
    best: list[tuple[float, set[int]]] = [(0.0, set())]
    for end in range(1, len(cells) + 1):
        options = []
        for start in range(end):
            forced = any(level(cell) for cell in cells[start + 1 : end])
            if not forced:
                away = (
                    break_cost(cells[start - 1], cells[start]) if start and not level(cells[start]) else 0.0
                )
                fullness = fullness_cost(sum(heights[start:end]), sum(map(running_words, cells[start:end])))
                cost = best[start][0] + NEW_SLIDE + away + fullness
                options.append((cost, best[start][1] | {start}))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def lay_out(notebook: NotebookNode, heights: list[float]) -> None:
    """Give every cell of the notebook except notes and what is skipped a new slide type."""
    shown = [i for i, cell in enumerate(notebook.cells) if is_on_slides(cell)]
    cells = [notebook.cells[i] for i in shown]
    starts = breaks(cells, [heights[i] for i in shown])
    for k, cell in enumerate(cells):
        first = "slide" if level(cell) in (1, 2) else "subslide"
        cell.metadata["slideshow"] = {"slide_type": first if k in starts else "fragment"}


def main(paths: list[str]) -> None:
    with forked_kernels(), jupyter_lab() as server, open_browser(server) as visit:
        for path in map(Path, paths):
            notebook = nbformat.read(path, as_version=4)
            open_slides(visit, path.name)
            lay_out(notebook, natural_heights(visit, notebook))
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
