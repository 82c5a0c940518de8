"""What nbgrader makes an assignment of: `python -m course_utils.exercises.assignment 04 --to class`.

The worked answers stand between nbgrader's delimiters, which it removes for the class; the test cells only
call `check`, so that nothing in what nbgrader releases or sends back as feedback gives an answer away.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_utils.exercises.asking import Function, Open, Question
from course_utils.exercises.questions import NOTEBOOKS, questions_of

TITLE = """# Exercises of notebook {notebook}

Replace the dots in the cells under each exercise, and run them: `check` says whether an answer is right, and if it is not, which mistake it looks like; `hint("{notebook}.1")` says where to look. Each exercise is worth as many points as it has stars, {points} in all. Do not delete cells and do not rename this file, `{notebook}.ipynb`."""  # noqa: E501
SETUP = "import math\n\nimport numpy as np\nimport torch\n\nfrom course_utils.exercises import check, hint"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CONFIG = '''"""How nbgrader runs what a class hands in: as `course_utils.exercises.grading` says."""

from course_utils.exercises import grading

c = get_config()  # noqa: F821
grading.configure(c)
'''
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def source_notebook(notebook: str) -> NotebookNode:
    """Return the source assignment of notebook "04". Raises: ValueError for a notebook without exercises."""
    questions = questions_of(notebook)
    points = sum(question.stars for question in questions.values())
    title = new_markdown_cell(TITLE.format(notebook=notebook, points=points), id="exercises")
    cells = [_marked(title, locked=True), _marked(new_code_cell(SETUP, id="exercises-import"), locked=True)]
    for number, question in questions.items():
        cells += _cells_of(number, question)
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def _cells_of(number: str, question: Question) -> list[NotebookNode]:
    """Return statement, answer and test of a question; an answer in words has no test, it is read."""
    name = f"exercise-{number.replace('.', '-')}"
    heading = f"### Exercise {number} {'★' * question.stars} ({question.minutes} minutes)"
    statement = new_markdown_cell(f"{heading}\n\n{question.statement}", id=f"{name}-statement")
    cells = [_marked(statement, locked=True)]
    if isinstance(question, Open):
        model = f"{BEGIN}\n{question.because}\n{END}"
        return [*cells, _marked(new_markdown_cell(model, id=name), solution=True, points=question.stars)]
    stub, _, test = question.cell(number).rpartition("\n")
    answer = "\n".join([stub.rstrip(), BEGIN, *_worked(number, question), END])
    cells.append(_marked(new_code_cell(answer, id=name), solution=True))
    test_cell = new_code_cell(test, id=f"{name}-check")
    return [*cells, _marked(test_cell, locked=True, points=question.stars)]


def _marked(
    cell: NotebookNode, locked: bool = False, solution: bool = False, points: int = 0
) -> NotebookNode:
    """Return a cell with what nbgrader wants to know of it; one that is worth points is graded."""
    marks = {"grade": points > 0, "grade_id": cell.id, "locked": locked, "solution": solution, "task": False}
    cell.metadata["nbgrader"] = marks | ({"points": points} if points else {}) | {"schema_version": 3}
    return cell


def _worked(number: str, question: Question) -> list[str]:
    """Return the lines that answer a question, the way to it before them as a comment."""
    name = question.cell(number).rpartition(", ")[2].removesuffix(")")
    comment = textwrap.wrap(question.solution, 100, initial_indent="# ", subsequent_indent="# ")
    if isinstance(question, Function):
        found = f'{name} = find("{number}").right  # solution("{number}") prints it'
        return [*comment, "from course_utils.exercises.questions import find", "", found]
    return [*comment, f"{name} = {_literal(question.answer)}"]


def _literal(answer: Any) -> str:
    """Return an answer as Python writes it: a text, a number, or a dictionary of numbers."""
    if isinstance(answer, Mapping):
        return repr({key: float(value) for key, value in answer.items()})
    return repr(answer if isinstance(answer, str) else float(answer))


def write(notebook: str, folder: Path) -> Path:
    """Write the source assignment, and nbgrader's configuration unless there is one; return the notebook."""
    path = folder / "source" / notebook / f"{notebook}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(source_notebook(notebook), path)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    return path


def main(arguments: list[str]) -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(prog="assignment", description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", choices=NOTEBOOKS)
    parser.add_argument("--to", type=Path, default=Path("class"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    if find_spec("nbgrader") is None:
        sys.exit(f'nbgrader is missing; install it with: {sys.executable} -m pip install -e ".[class]"')
    print(f"wrote {write(given.notebook, given.to)}")


if __name__ == "__main__":
    main(sys.argv[1:])
