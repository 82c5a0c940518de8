"""No answer stands before its question: rules that return complaints, each shown to find a planted fault."""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS_FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(NOTEBOOKS_FOLDER.glob("*.ipynb"))
NOTHING_TO_COUNT = "20_clinic"  # there a diagnosis is the prediction, and it is graded

PROMPT = re.compile(r"\*\*Predict\b")
TOLD = re.compile(r"\bDerive\b|(?:=|≈|\\approx)\s*[-−]?\.?\d")
UNTOUCHED = re.compile(r"(guess_\w+) = \.\.\.  # your guess: \S.*")
NUMBER = re.compile(r"\d\.\d|\de[-+]?\d|:.*\d")

Rule = Callable[[NotebookNode], Iterator[str]]


def asks(cell: NotebookNode) -> bool:
    return cell.cell_type == "markdown" and bool(PROMPT.search(cell.source))


def is_collapsed(cell: NotebookNode) -> bool:
    return cell.metadata.get("jupyter", {}).get("outputs_hidden", False)


def first_line(cell: NotebookNode) -> str:
    """Return what JupyterLab shows of a cell's collapsed outputs."""
    output = cell.outputs[0]
    return (output.get("text") or output.get("data", {}).get("text/plain", "")).partition("\n")[0]


def questions_tell_nothing(notebook: NotebookNode) -> Iterator[str]:
    for cell in filter(asks, notebook.cells):
        told = TOLD.search(cell.source, PROMPT.search(cell.source).end())
        if told:
            yield f"{cell.id}: {told[0]!r} behind the question: give the answer a cell of its own"


def guesses_follow_their_question(notebook: NotebookNode) -> Iterator[str]:
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code" and cell.source.startswith("guess_"):
            if not asks(before):
                yield f"{cell.id}: the cell before this guess asks no question"
            for line in cell.source.splitlines():
                if not UNTOUCHED.fullmatch(line):
                    yield f"{cell.id}: {line!r} is not like `guess_rms = ...  # your guess: the RMS`"


def guesses_are_compared(notebook: NotebookNode) -> Iterator[str]:
    open_guesses: dict[str, str] = {}  # name: id of its cell
    for cell in notebook.cells:
        names = re.findall(r"\bguess_\w+", cell.source) if cell.cell_type == "code" else []
        if cell.source.startswith("guess_"):
            open_guesses |= dict.fromkeys(names, cell.id)
        elif "compare(" in cell.source:
            open_guesses = {name: at for name, at in open_guesses.items() if name not in names}
    for name, at in open_guesses.items():
        yield f"{at}: {name} is compared nowhere behind it"


def answers_are_collapsed(notebook: NotebookNode) -> Iterator[str]:
    """The first output of its section after a question is an answer, and so is a table that shows a guess."""
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (asks(cell) or cell.source.startswith("#")):
            asked = asks(cell)
        if cell.get("outputs") and (asked or "guess_" in cell.source):
            asked = False
            if not is_collapsed(cell):
                yield f"{cell.id}: its output is an answer: collapse it (jupyter.outputs_hidden)"


def placeholders_tell_nothing(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.get("outputs") and is_collapsed(cell) and NUMBER.search(first_line(cell)):
            yield f"{cell.id}: collapsed, it still shows {first_line(cell)!r}: print a heading first"


def the_recap_begins_with_the_tally(notebook: NotebookNode) -> Iterator[str]:
    before = [notebook.cells[i - 1].source for i, c in enumerate(notebook.cells) if "tally()" in c.source]
    if len(before) != 1 or not before[0].startswith("## Recap"):
        yield f"expected one cell tally() behind the heading Recap; got it behind {before}"


RULES: list[Rule] = [
    questions_tell_nothing,
    guesses_follow_their_question,
    guesses_are_compared,
    answers_are_collapsed,
    placeholders_tell_nothing,
    the_recap_begins_with_the_tally,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, rule: Rule):
    if path.stem != NOTHING_TO_COUNT or rule is not the_recap_begins_with_the_tally:
        assert list(rule(nbformat.read(path, as_version=4))) == []


HIDDEN = {"jupyter": {"outputs_hidden": True}}
TABLE = new_output("execute_result", {"text/plain": "quantity  you  predicted\nsum  –  2"}, execution_count=2)
PRINT = new_output("stream", name="stdout", text="the sum\nis 2.0\n")

GOOD = new_notebook(
    cells=[
        new_markdown_cell("Let $n = 1$. **Predict.** What are $n + n$ and $n - n$? Is either of them even?"),
        new_code_cell("guess_sum = ...  # your guess: the sum\nguess_rest = ...  # your guess: the rest"),
        new_markdown_cell("**Derive.** $n + n = 2$."),
        new_code_cell("print('the sum')\nprint(f'is {1 + 1:.1f}')", outputs=[PRINT], metadata=HIDDEN),
        new_code_cell(
            "compare(('sum', 2, two, guess_sum), ('rest', 0, zero, guess_rest))",
            outputs=[TABLE],
            metadata=HIDDEN,
        ),
        new_markdown_cell("## Recap"),
        new_code_cell("tally()", outputs=[new_output("stream", name="stdout", text="No guesses yet")]),
        new_markdown_cell("**Next:** three."),
    ]
)


def planted(cell: int, old: str, new: str) -> NotebookNode:
    notebook = deepcopy(GOOD)
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    return notebook


def with_change(change: Callable[[list[NotebookNode]], object]) -> NotebookNode:
    notebook = deepcopy(GOOD)
    change(notebook.cells)
    return notebook


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_passes(rule: Rule):
    assert list(rule(GOOD)) == []


PLANTED_FAULTS = [
    (questions_tell_nothing, planted(0, "even?", "even? **Derive.** Yes.")),
    (questions_tell_nothing, planted(0, "even?", "even? $n + n = 2$")),
    (questions_tell_nothing, planted(0, "even?", "even? $n - n \\approx -0.1$")),
    (guesses_follow_their_question, with_change(lambda cells: cells.insert(1, cells.pop(2)))),
    (guesses_follow_their_question, planted(0, "Predict", "Think")),
    (guesses_follow_their_question, planted(1, "guess_sum = ...", "guess_sum = 2")),
    (guesses_follow_their_question, planted(1, "  # your guess: the sum", "")),
    (guesses_are_compared, planted(4, "guess_rest", "...")),
    (guesses_are_compared, planted(4, "guess_sum", "guess_sums")),
    (guesses_are_compared, planted(4, "compare", "print")),
    (guesses_are_compared, with_change(lambda cells: cells.insert(5, cells.pop(1)))),
    (answers_are_collapsed, with_change(lambda cells: cells[3].metadata.clear())),
    (answers_are_collapsed, with_change(lambda cells: cells[4].metadata.clear())),
    (placeholders_tell_nothing, with_change(lambda cells: cells[3].outputs[0].update(text="2.0\n"))),
    (placeholders_tell_nothing, with_change(lambda cells: cells[3].outputs[0].update(text="2e-1\n"))),
    (placeholders_tell_nothing, with_change(lambda cells: cells[3].outputs[0].update(text="sum: 2\n"))),
    (
        placeholders_tell_nothing,
        with_change(lambda cells: cells[4].outputs[0].data.update({"text/plain": "2.0"})),
    ),
    (the_recap_begins_with_the_tally, with_change(lambda cells: cells.pop(6))),
    (the_recap_begins_with_the_tally, with_change(lambda cells: cells.insert(7, cells[6]))),
    (the_recap_begins_with_the_tally, with_change(lambda cells: cells.insert(5, cells.pop(6)))),
]


@pytest.mark.parametrize(
    ("rule", "notebook"), PLANTED_FAULTS, ids=[rule.__name__ for rule, _ in PLANTED_FAULTS]
)
def test_a_planted_fault_is_found(rule: Rule, notebook: NotebookNode):
    assert list(rule(notebook))


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _ in PLANTED_FAULTS} == set(RULES)
