"""Write the exercises of notebooks from their definitions: `python write_exercises.py notebooks/04*.ipynb`.

The section "## Exercises" is made anew, from its heading to the next, and the opening says how long they
take; then store the notebook's outputs.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from course_utils.exercises.questions import questions_of

OPENING = """## Exercises

{count} exercises, about {minutes} minutes. Replace the dots and run the cell: `check` says whether an answer is right, and if it is not, which mistake it looks like. `hint("{first}")` says where to look, `hint("{first}", 2)` takes the first step, `solution("{first}")` shows the whole way."""  # noqa: E501
IMPORT = "from course_utils.exercises import check, hint, solution"


def cells_of(notebook: str) -> list[NotebookNode]:
    """Return the cells of the exercises of notebook "04"."""
    questions = questions_of(notebook)
    text = OPENING.format(count=len(questions), minutes=minutes(notebook), first=next(iter(questions)))
    cells = [new_markdown_cell(text, id="exercises"), new_code_cell(IMPORT, id="exercises-import")]
    for number, question in questions.items():
        heading = f"### Exercise {number} {'★' * question.stars} ({question.minutes} minutes)"
        name = f"exercise-{number.replace('.', '-')}"
        cells += [
            new_markdown_cell(f"{heading}\n\n{question.statement}", id=name),
            new_code_cell(question.cell(number), id=f"{name}-code"),
        ]
    for cell in cells:  # a slide says that there are some; they are worked on in the notebook
        cell.metadata = {"slideshow": {"slide_type": "slide" if cell.id == "exercises" else "skip"}}
    return cells


def minutes(notebook: str) -> int:
    """Return how many minutes the exercises of notebook "04" take."""
    return sum(question.minutes for question in questions_of(notebook).values())


def state_minutes(cells: list[NotebookNode], notebook: str) -> None:
    """Write behind the minutes of a notebook's opening those of its exercises."""
    for cell in cells[:4]:
        stated = r"(\*\*Minutes:\*\*.*?)(?: Exercises: \d+\.)?$"
        cell.source = re.sub(stated, rf"\1 Exercises: {minutes(notebook)}.", cell.source, flags=re.MULTILINE)


def section(cells: list[NotebookNode]) -> slice:
    """Return where the exercises are among the cells of a notebook."""
    starts = [place for place, cell in enumerate(cells) if cell.source.startswith("## ")]
    first = next(place for place in starts if cells[place].source.startswith("## Exercises"))
    return slice(first, min(place for place in starts if place > first))


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[section(notebook.cells)] = cells_of(path.stem[:2])
        state_minutes(notebook.cells, path.stem[:2])
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
