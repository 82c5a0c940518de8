"""The source assignments for nbgrader: complete, worth what they should be, and silent on the answers."""

import re
from importlib.util import find_spec

import nbformat
import pytest

from course_utils.exercises import assignment, checking
from course_utils.exercises.asking import Function, Open
from course_utils.exercises.assignment import BEGIN, END, source_notebook
from course_utils.exercises.questions import NOTEBOOKS, find, questions_of

each = pytest.mark.parametrize("notebook", NOTEBOOKS)
SOLUTION = re.compile(rf"{BEGIN}\n.*{END}", re.DOTALL)
MARKS = {"grade", "grade_id", "locked", "solution", "task", "schema_version"}  # of version 3


def marks(cell):
    return cell.metadata.nbgrader


def number_of(cell):
    return ".".join(marks(cell).grade_id.split("-")[1:3])


def answers(notebook):
    """Return the answer cells in code of a notebook by the numbers of their questions."""
    cells = source_notebook(notebook).cells
    return {
        number_of(cell): cell.source for cell in cells if marks(cell).solution and cell.cell_type == "code"
    }


@each
def test_it_is_a_notebook_with_the_marks_of_nbgrader(notebook):
    made = source_notebook(notebook)
    nbformat.validate(made)
    names = [marks(cell).grade_id for cell in made.cells]
    assert len(set(names)) == len(names)
    for cell in made.cells:
        assert set(marks(cell)) == MARKS | ({"points"} if marks(cell).grade else set())
        assert marks(cell).schema_version == 3
        assert marks(cell).locked != marks(cell).solution
        assert cell.cell_type == "code" or not marks(cell).grade or marks(cell).solution


@each
def test_each_question_is_graded_once_with_its_stars(notebook):
    graded = [cell for cell in source_notebook(notebook).cells if marks(cell).grade]
    wanted = {number: question.stars for number, question in questions_of(notebook).items()}
    assert {number_of(cell): marks(cell).points for cell in graded} == wanted
    assert len(graded) == len(wanted)
    for cell in graded:  # an answer in words is read, any other tested
        assert marks(cell).solution == isinstance(find(number_of(cell)), Open)


@each
def test_nothing_but_stub_and_check_is_left_without_the_solution(notebook):
    questions, cells = questions_of(notebook), source_notebook(notebook).cells[2:]
    left = [SOLUTION.sub("", cell.source).rstrip() for cell in cells]
    for number, question in questions.items():
        statement, answer, *test = (left.pop(0) for _ in range(2 if isinstance(question, Open) else 3))
        assert statement.endswith(question.statement)
        assert "\n".join([answer, *test]) == (
            "" if isinstance(question, Open) else plain(question.cell(number))
        )
    assert left == []


def plain(code):
    return re.sub(r"\n+", "\n", code)


@each
def test_solutions_are_right_and_stubs_not_attempted(notebook, capsys):
    for number, source in answers(notebook).items():
        question, name = find(number), re.search(r"^(?:def )?(\w+)", source, re.MULTILINE)[1]
        solved, untouched = {}, {}
        exec(source, solved)
        exec(SOLUTION.sub("", source), untouched)
        checking.check(number, untouched[name])
        assert capsys.readouterr().out.startswith(f"{number} not attempted")
        if isinstance(question, Function):  # that it is right is a test of the question
            assert solved[name] is question.right
        else:
            checking.check(number, solved[name])
            assert capsys.readouterr().out.startswith(f"{number} right.")


def test_a_configuration_that_is_there_is_kept(tmp_path):
    config = tmp_path / "nbgrader_config.py"
    assert assignment.write("04", tmp_path) == tmp_path / "source" / "04" / "04.ipynb"
    compile(config.read_text(encoding="utf-8"), config, "exec")
    config.write_text("# mine", encoding="utf-8")
    assignment.write("05", tmp_path)
    assert config.read_text(encoding="utf-8") == "# mine"


@pytest.mark.skipif(find_spec("nbgrader") is not None, reason="nbgrader is installed")
def test_a_missing_nbgrader_is_said_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"nbgrader is missing; install it with: .* -m pip install -e"):
        assignment.main(["04", "--to", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_without_exercises_is_refused(capsys):
    with pytest.raises(SystemExit):
        assignment.main(["20"])
    assert "invalid choice: '20'" in capsys.readouterr().err
