"""The conventions of a notebook: rules that return complaints, each shown to find a planted fault."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import nbformat
import notebook_links
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_links import COURSE_MAP, NOTEBOOKS_FOLDER, headings, links, numbers_are_links, stands_in_the_map
from reading_time import MAX_WORDS, running_words
from store_outputs import README_NOTEBOOK, README_PICTURE, last_picture
from write_exercises import cells_of, minutes, section, state_minutes

from course_utils.exercises.questions import NOTEBOOKS as WITH_QUESTIONS
from course_utils.exercises.questions import questions_of

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(NOTEBOOKS_FOLDER.glob("*.ipynb"))

# Cells whose output nbval may not compare: {notebook: {cell id: why}}.
ALLOWED_IGNORED: dict[str, dict[str, str]] = {
    "11_ten_thousand_layers.ipynb": {"522cc7ef": "prints wall times and their ratio to the flop floor"},
}

MAX_BYTES = 1_000_000
MAX_LINES, MAX_MEDIAN_LINES = 25, 8
MIN_WORDS_PER_LINE = 6
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users)/|[A-Z]:\\Users")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}|<Axes|<matplotlib|<function")
NBVAL_SKIP = re.compile(r"nbval[-_](skip|raises[-_]exception)|raises-exception", re.IGNORECASE)
NBVAL_IGNORE = re.compile(r"(nbval|pytest_validate)[-_]ignore[-_]output", re.IGNORECASE)
NAMED_EXERCISES = re.compile(r"\b[Ee]xercises?((?:(?:,? and|,? or|,| to)? \d+(?:\.\d+)?)+)")
CHECK = re.compile(r"^\s*assert\b|\b(compare|refute)\(", re.MULTILINE)

Rule = Callable[[str, NotebookNode], Iterator[str]]


def cells(notebook: NotebookNode, cell_type: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == cell_type]


def lines(cell: NotebookNode) -> int:
    return sum(1 for line in cell.source.splitlines() if line.strip())


def markers(cell: NotebookNode) -> str:
    """Return the text in which nbval looks for its markers: tags and comments."""
    return "\n".join([*cell.metadata.get("tags", []), *re.findall("#.*", cell.source)])


def texts(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return (cell id, text) of every text output; pictures are left out."""
    found = []
    for cell in cells(notebook, "code"):
        for output in cell.outputs:
            data = {kind: text for kind, text in output.get("data", {}).items() if kind.startswith("text/")}
            found += [(cell.id, text) for text in [output.get("text", ""), *data.values()]]
    return found


def file_name(name: str, notebook: NotebookNode) -> Iterator[str]:
    if not re.fullmatch(r"\d\d_[a-z0-9]+(_[a-z0-9]+)*\.ipynb", name):
        yield "the name is not NN_snake_case.ipynb"


def opening(name: str, notebook: NotebookNode) -> Iterator[str]:
    if not (notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")):
        yield "the first cell is no title"
    before_code = itertools.takewhile(lambda cell: cell.cell_type == "markdown", notebook.cells)
    text = "\n".join(cell.source for cell in before_code)
    for phrase in ("You will be able to", "Prerequisites", "Minutes"):
        if phrase.lower() not in text.lower():
            yield f"the opening lacks {phrase!r}"


def closing(name: str, notebook: NotebookNode) -> Iterator[str]:
    wanted = ["## Where it breaks", "## Exercises", "## Recap"]
    sections = [h for h in headings(notebook) if h.startswith("## ") and not h.startswith("## Next")]
    if sections[-len(wanted) :] != wanted:
        yield f"the last sections are not {wanted}"
    if "Next" not in notebook.cells[-1].source:
        yield "the last cell does not say what is Next"


def exercises(name: str, notebook: NotebookNode) -> Iterator[str]:
    if name[:2] in WITH_QUESTIONS:
        stored = [cell.source for cell in notebook.cells[section(notebook.cells)]]
        if stored != [cell.source for cell in cells_of(name[:2])]:
            yield "its exercises are not those of course_utils/exercises/questions: run write_exercises.py"
        if f" Exercises: {minutes(name[:2])}." not in "".join(cell.source for cell in notebook.cells[:4]):
            yield "the opening does not say how long the exercises take: run write_exercises.py"
        return
    found = re.findall(r"^### Exercise (\d+)", "\n".join(headings(notebook)), re.MULTILINE)
    if found not in (list("123"), list("1234"), list("12345")):
        yield f"exercises {found}, not three to five numbered from 1"


def named_exercises(name: str, notebook: NotebookNode) -> Iterator[str]:
    """Look for prose that names an exercise otherwise than its heading does, or one that does not exist."""
    known = {number for other in WITH_QUESTIONS for number in questions_of(other)}
    known |= set(re.findall(r"^### Exercise (\d[.\d]*)", "\n".join(headings(notebook)), re.MULTILINE))
    inside = section(notebook.cells)
    outside = notebook.cells[: inside.start] + notebook.cells[inside.stop :]
    for names in NAMED_EXERCISES.findall("\n".join(c.source for c in outside if c.cell_type == "markdown")):
        for number in re.findall(r"[\d.]+", names):
            if number not in known:
                yield f"there is no exercise {number}: they are called 04.1 or so, as in their headings"


def letters(name: str, notebook: NotebookNode) -> Iterator[str]:
    found = re.findall(
        r"\(A\d\)|\bA\d holds|assumption A\d", "\n".join(cell.source for cell in cells(notebook, "markdown"))
    )
    if found:
        yield f"assumptions {found}: they are (I), (F), (W), (S) and (G), as in notebook 00"


def slides(name: str, notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        if "slide_type" not in cell.metadata.get("slideshow", {}):
            yield f"{cell.id}: no slide type"


def few_words(name: str, notebook: NotebookNode) -> Iterator[str]:
    on_this_slide, first = 0, ""
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind in ("slide", "subslide"):
            on_this_slide, first = 0, cell.id
        if kind not in ("notes", "skip"):
            on_this_slide += running_words(cell)
            if on_this_slide > MAX_WORDS:
                yield f"{first} to {cell.id}: {on_this_slide} words on a slide: run `make layout`"


def plan_adds_up(name: str, notebook: NotebookNode) -> Iterator[str]:
    stated = re.search(r"Minutes:\D*(\d+)", "\n".join(cell.source for cell in notebook.cells[:3]))
    minutes = int(stated[1]) if stated else None
    notes = [c for c in notebook.cells if c.metadata.get("slideshow", {}).get("slide_type") == "notes"]
    plan = "".join(c.source for c in notes[:1]).partition(f"**Plan for {minutes} minutes.**")[2]
    for step in (r"\* \((\d+)\)", r"lecture, (\d+) minutes"):
        found = [int(m) for m in re.findall(step, plan)]
        if sum(found) != minutes and (found or "lecture" not in step):
            yield f"the plan's {found} minutes do not add up to the stated {minutes}"


def short_cells(name: str, notebook: NotebookNode) -> Iterator[str]:
    counts = {cell.id: lines(cell) for cell in cells(notebook, "code")}
    for cell, count in counts.items():
        if count > MAX_LINES:
            yield f"{cell}: {count} lines of code, over {MAX_LINES}"
    if median(counts.values()) > MAX_MEDIAN_LINES:
        yield f"the median code cell has {median(counts.values())} lines, over {MAX_MEDIAN_LINES}"


def enough_prose(name: str, notebook: NotebookNode) -> Iterator[str]:
    prose = "\n".join(cell.source for cell in cells(notebook, "markdown"))
    prose = re.sub(
        r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|(?<=\])\([^)]*\)", " ", prose, flags=re.DOTALL
    )  # neither code nor formulas nor addresses
    words = len(re.findall(r"\w*[^\W\d_]\w*", prose))
    code = sum(lines(cell) for cell in cells(notebook, "code"))
    if words < MIN_WORDS_PER_LINE * code:
        yield f"{words} words of prose for {code} lines of code, under {MIN_WORDS_PER_LINE} a line"


def executed_in_order(name: str, notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in cells(notebook, "code")]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts}: run `make outputs`"


def clean_outputs(name: str, notebook: NotebookNode) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"{cell.id}: stored error or stderr"
            if any("widget" in kind for kind in output.get("data", {})):
                yield f"{cell.id}: stored widget: run `make outputs`"


def same_on_every_machine(name: str, notebook: NotebookNode) -> Iterator[str]:
    for cell, text in [*texts(notebook), *((cell.id, cell.source) for cell in notebook.cells)]:
        if MACHINE_PATH.search(text):
            yield f"{cell}: path of one machine"
    for cell, text in texts(notebook):
        if ADDRESS.search(text):
            yield f"{cell}: address or repr of an object"


def plain_metadata(name: str, notebook: NotebookNode) -> Iterator[str]:
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    if notebook.metadata.get("language_info") != {"name": "python"} or len(notebook.metadata) != 2:
        yield "metadata beyond kernel and language: run `make outputs`"


def everything_is_compared(name: str, notebook: NotebookNode) -> Iterator[str]:
    ignored = set()
    for cell in cells(notebook, "code"):
        if NBVAL_SKIP.search(markers(cell)):
            yield f"{cell.id}: nbval skips it"
        if NBVAL_IGNORE.search(markers(cell)):
            ignored.add(cell.id)
    allowed = set(ALLOWED_IGNORED.get(name, {}))
    for cell in sorted(ignored - allowed):
        yield f"{cell}: output ignored without a reason in ALLOWED_IGNORED"
    for cell in sorted(allowed - ignored):
        yield f"{cell}: in ALLOWED_IGNORED, but its output is compared"


def no_hidden_warnings(name: str, notebook: NotebookNode) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        if "warnings.filterwarnings" in cell.source:
            yield f"{cell.id}: hides warnings"


def figures_are_asserted(name: str, notebook: NotebookNode) -> Iterator[str]:
    code = cells(notebook, "code")
    figures = sum(any(k.startswith("image/") for o in c.outputs for k in o.get("data", {})) for c in code)
    checks = sum(bool(CHECK.search(cell.source)) for cell in code)
    if checks < figures:
        yield f"{figures} cells with figures, but {checks} with assertions"


def small_file(name: str, notebook: NotebookNode) -> Iterator[str]:
    size = len(nbformat.writes(notebook).encode())
    if size >= MAX_BYTES:
        yield f"{size} bytes, not under {MAX_BYTES}"


RULES: list[Rule] = [
    file_name,
    opening,
    closing,
    exercises,
    named_exercises,
    letters,
    slides,
    few_words,
    plan_adds_up,
    short_cells,
    enough_prose,
    executed_in_order,
    clean_outputs,
    same_on_every_machine,
    plain_metadata,
    everything_is_compared,
    no_hidden_warnings,
    figures_are_asserted,
    links,
    numbers_are_links,
    stands_in_the_map,
    small_file,
]


def test_exercises_that_are_not_those_of_the_questions_are_found():
    wanted, notebook = cells_of("04"), good_notebook()
    notebook.cells[section(notebook.cells)] = wanted
    notebook.cells[0].source += "\n\n**Minutes:** 90."
    assert list(exercises("04_relu.ipynb", notebook)) != []  # the opening does not say how long they take
    state_minutes(notebook.cells, "04")
    state_minutes(notebook.cells, "04")  # twice is once
    assert list(exercises("04_relu.ipynb", notebook)) == []
    notebook.cells[section(notebook.cells)] = wanted[:-1]
    assert list(exercises("04_relu.ipynb", notebook)) != []


def test_there_are_notebooks():
    assert NOTEBOOKS, "no notebooks found"
    assert set(ALLOWED_IGNORED) <= {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, rule: Rule):
    assert list(rule(path.name, nbformat.read(path, as_version=4))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_readme_links_every_notebook(path: Path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"(notebooks/{path.name})" in readme
    for row in re.findall(rf"\]\({path.name}\) \| [^|]+ \| \d+ \|", COURSE_MAP):  # its question and minutes
        assert row.replace("](", "](notebooks/") in readme


def test_the_readme_shows_the_stored_picture():
    notebook = nbformat.read(NOTEBOOKS[0].parent / README_NOTEBOOK, as_version=4)
    assert README_PICTURE.read_bytes() == last_picture(notebook), "run `make outputs`"


# A notebook that keeps every rule, and faults to plant in it.

FIGURE = new_output("display_data", {"image/png": "", "text/plain": "a line"})
GOOD_REFERENCE = (
    "See notebooks [00](00_start_here.ipynb#●-How-to-read-a-figure) and [04](04_relu_and_kaiming.ipynb)"
)


def good_notebook() -> NotebookNode:
    def text(source: str) -> NotebookNode:
        return new_markdown_cell(source, metadata={"slideshow": {"slide_type": "slide"}})

    def notes(source: str) -> NotebookNode:
        return new_markdown_cell(source, metadata={"slideshow": {"slide_type": "notes"}})

    def code(count: int, source: str, *outputs: NotebookNode) -> NotebookNode:
        metadata = {"slideshow": {"slide_type": "-"}}
        return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)

    return new_notebook(
        cells=[
            text("# Why 2?\n\nYou will be able to derive it. Prerequisites: none. Minutes: 5."),
            code(1, "assert 1 + 1 == 2\nprint(2)", new_output("stream", name="stdout", text="2\n")),
            text("## Where it breaks\n\nNowhere."),
            code(2, "plot()", FIGURE),
            text("## Exercises\n\n### Exercise 1\n\n### Exercise 2\n\n### Exercise 3"),
            text(f"## Recap\n\n**In one sentence:** One and one make two.\n\n{GOOD_REFERENCE}."),
            notes("**Plan for 5 minutes.** One lecture, 5 minutes:\n\n* (2)\n* (3)"),
            text("**Next:** three."),
        ],
        metadata={
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )


GOOD_NAME = "99_a_good_notebook.ipynb"
GOOD_ROWS = f"\n| [99 Two]({GOOD_NAME}) | Why 2? | 5 |\n| [99]({GOOD_NAME}) | One and one make two. |\n"


@pytest.fixture(autouse=True)
def rows_of_the_good_notebook(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notebook_links, "COURSE_MAP", notebook_links.COURSE_MAP + GOOD_ROWS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_passes(rule: Rule):
    assert list(rule(GOOD_NAME, good_notebook())) == []


def planted(cell: int, old: str, new: str) -> NotebookNode:
    notebook = good_notebook()
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    return notebook


def planted_in_two_cells(text: str) -> NotebookNode:
    notebook = good_notebook()
    for cell in notebook.cells[2:5:2]:
        cell.source += text
    notebook.cells[4].metadata.slideshow.slide_type = "fragment"
    return notebook


def with_output(output_type: str, **fields) -> NotebookNode:
    notebook = good_notebook()
    notebook.cells[1].outputs = [new_output(output_type, **fields)]
    return notebook


def with_change(change: Callable[[NotebookNode], object]) -> NotebookNode:
    notebook = good_notebook()
    change(notebook)
    return notebook


def stream(text: str) -> NotebookNode:
    return with_output("stream", name="stdout", text=text)


def tagged(tag: str) -> NotebookNode:
    return with_change(lambda nb: nb.cells[1].metadata.update(tags=[tag]))


@pytest.mark.parametrize(
    "name", ["4_relu.ipynb", "04_ReLU.ipynb", "04-relu.ipynb", "04_.ipynb", "04_relu.ipynb.bak"]
)
def test_a_wrong_name_is_found(name: str):
    assert list(file_name(name, good_notebook()))


PLANTED_FAULTS = [
    (opening, planted(0, "# Why", "Why")),
    (opening, planted(0, "You will be able to", "We")),
    (opening, planted(0, "Prerequisites", "Needs")),
    (opening, planted(0, "Minutes", "Time")),
    (closing, planted(2, "## Where it breaks", "## Limits")),
    (closing, planted(5, "## Recap", "## Exercises")),
    (closing, planted(7, "Next", "Then")),
    (exercises, planted(4, "### Exercise 3", "### Exercise 4")),
    (exercises, planted(4, "### Exercise 3", "")),
    (named_exercises, planted(5, "See", "See exercise 4 and")),
    (named_exercises, planted(5, "See", "See exercises 1, 2 and 04.99 and")),
    (letters, planted(2, "Nowhere.", "Assume (A1).")),
    (slides, with_change(lambda nb: nb.cells[2].metadata.clear())),
    (few_words, planted(2, "Nowhere.", "Nowhere. " * 91)),
    (few_words, planted_in_two_cells("word " * 46)),
    (plan_adds_up, planted(6, "(3)", "(4)")),
    (plan_adds_up, planted(6, "lecture, 5", "lecture, 4")),
    (plan_adds_up, planted(6, "Plan for 5", "Plan for 6")),
    (short_cells, planted(1, "print(2)", "print(2)\n" * 25)),
    (short_cells, planted(1, "print(2)", "print(2)\n" * 16)),
    (enough_prose, planted(1, "print(2)", "print(2)\n" * 8)),
    (
        enough_prose,
        with_change(lambda nb: [c.update(source=f"$ {c.source} $") for c in cells(nb, "markdown")]),
    ),
    (executed_in_order, with_change(lambda nb: nb.cells[1].update(execution_count=None))),
    (executed_in_order, with_change(lambda nb: nb.cells[3].update(execution_count=1))),
    (clean_outputs, with_output("error", ename="ValueError", evalue="", traceback=[])),
    (clean_outputs, with_output("stream", name="stderr", text="UserWarning")),
    (clean_outputs, with_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})),
    (same_on_every_machine, stream("/home/ada/course")),
    (same_on_every_machine, stream("C:\\Users\\ada")),
    (same_on_every_machine, planted(1, "print(2)", "open('/tmp/x')")),
    (same_on_every_machine, stream("<function f at 0x7f0012345678>")),
    (same_on_every_machine, with_output("display_data", data={"text/plain": "<Axes: >"})),
    (plain_metadata, with_change(lambda nb: nb.metadata.kernelspec.update(name="course"))),
    (plain_metadata, with_change(lambda nb: nb.metadata.update(widgets={}))),
    (plain_metadata, with_change(lambda nb: nb.metadata.language_info.update(version="3.11.7"))),
    (everything_is_compared, tagged("nbval-skip")),
    (everything_is_compared, tagged("nbval-ignore-output")),
    (everything_is_compared, planted(1, "print(2)", "# NBVAL_SKIP")),
    (everything_is_compared, planted(1, "print(2)", "# NBVAL_IGNORE_OUTPUT")),
    (no_hidden_warnings, planted(1, "print(2)", "warnings.filterwarnings('ignore')")),
    (figures_are_asserted, planted(1, "assert", "print")),
    (links, planted(5, "See", "[See](98_gone.ipynb)")),
    (links, planted(5, "See", "[See](00_start_here.ipynb#No-such-heading)")),
    (numbers_are_links, planted(5, "See", "See notebook 00 and")),
    (numbers_are_links, planted(5, "[04](", "[05](")),
    (numbers_are_links, planted(5, "kaiming.ipynb)", "kaiming.ipynb) and 05")),
    (stands_in_the_map, planted(0, "Why 2?", "Why two?")),
    (stands_in_the_map, planted(0, "Minutes: 5", "Minutes: 6")),
    (stands_in_the_map, planted(5, "make two", "make a two")),
    (stands_in_the_map, planted(5, "**In one sentence:**", "In short:")),
    (stands_in_the_map, planted(5, "One and", "One and " * 25)),
    (small_file, stream("2" * MAX_BYTES)),
]


@pytest.mark.parametrize(
    ("rule", "notebook"), PLANTED_FAULTS, ids=[rule.__name__ for rule, _ in PLANTED_FAULTS]
)
def test_a_planted_fault_is_found(rule: Rule, notebook: NotebookNode):
    assert list(rule(GOOD_NAME, notebook))


def test_a_needless_permission_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ALLOWED_IGNORED, GOOD_NAME, {"no-such-cell": "prints a time"})
    assert list(everything_is_compared(GOOD_NAME, good_notebook()))


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _ in PLANTED_FAULTS} | {file_name} == set(RULES)
