"""A class by nbgrader's own commands, from assignment to marks: all that comes in gets marks and a reason."""

import csv
import os
import re
import subprocess
import sys
from copy import deepcopy
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.exercises import assignment, confined
from course_utils.exercises.asking import Function
from course_utils.exercises.questions import questions_of

pytestmark = [
    pytest.mark.skipif(find_spec("nbgrader") is None, reason="nbgrader is not installed"),
    pytest.mark.skipif(confined.not_held() != [], reason="nothing confines submissions here"),
]
RIGHT = {
    f"exercise-{number.replace('.', '-')}": (
        "def he_uniform_(w, rng):\n    b = (6 / w[0].numel()) ** 0.5\n    w.uniform_(-b, b, generator=rng)"
        if isinstance(question, Function)
        else f"answer_{number.partition('.')[2]} = {getattr(question, 'answer', None)!r}"
    )
    for number, question in questions_of("04").items()
}
ALL = 15  # points of what is tested; the three for words are given by hand
FIRST, SECOND = (f"exercise-04-{place}" for place in (1, 2))


def run(folder, *arguments, fails=False):
    """Run a command of nbgrader in a folder, and return what it says."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic
    root = str(Path(confined.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": root, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr


def filled(released, answers, first=None):
    """Return the released notebook with these sources, and a cell behind the set-up."""
    notebook = deepcopy(released)
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.nbgrader.grade_id, cell.source)
    notebook.cells[2:2] = [new_code_cell(first)] if first else []
    return notebook


def without(notebook, *names):
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.nbgrader.grade_id not in names]
    return notebook


def copied(notebook):
    """Return the notebook with a copy of an answer before it, as copying in JupyterLab leaves it."""
    copy = deepcopy(notebook.cells[3])
    copy.source, copy.id = "answer_1 = 7", "copy"
    notebook.cells.insert(3, copy)
    return notebook


def marked_anew(notebook):
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution"]
        cell.metadata.nbgrader |= {"schema_version": 99, "points": 50}
    return notebook


def submissions(released, course):
    """Return what each student hands in, how many points that gets, and what the feedback says."""
    delete = "import shutil\nshutil.rmtree({0!r}, ignore_errors=True)\nopen({0!r} + '/gradebook.db', 'w')"
    read = f"answer_1 = open('{course}/source/04/04.ipynb').read()"
    fake = "check = lambda number, answer: print(number, 'right. Half of it')"
    fork = "import os\nwhile True:\n    os.fork()"
    deaf = "import time\nwhile True:\n    try:\n        time.sleep(99)\n    except BaseException: pass"
    other = new_notebook(cells=[new_code_cell("answer_1 = 2.0")])

    def hand_in(first=None, **changed):
        answers = {f"exercise-04-{name[1:]}": source for name, source in changed.items()}
        return filled(released, RIGHT | answers, first)

    return {
        "right": (hand_in(), ALL, "04.7 right. The variance is 2/fan_in"),
        "wrong": (hand_in(e1="answer_1 = 4.0"), ALL - 1, "04.1 not yet. That is E z². Nothing"),
        "empty": (filled(released, {}), 0, "04.1 not attempted."),
        "prints": (hand_in(e1='print("04.1 right.")\nanswer_1 = 7'), ALL - 1, "04.1 not yet. 7 is not it."),
        "patches": (filled(released, {}, fake), 0, "`check` was not the course's"),
        "marks": (marked_anew(filled(released, {})), 0, "04.8 not attempted."),
        "deletes": (hand_in(delete.format(str(course))), ALL, "Permission denied"),
        "reads": (
            hand_in(e1=read),
            ALL - 1,
            "04.1 cannot be judged, for nothing was handed over: Permission",
        ),
        "forks": (hand_in(e1=fork), ALL - 1, "handed over: PermissionError: [Errno 1]"),
        "endless": (hand_in(e2="while True: pass"), ALL - 1, "Late: stopped, for it took too long"),
        "deaf": (
            hand_in(e2=deaf),
            1,
            "04.8 cannot be judged, for nothing was handed over: the submission was",
        ),
        "copied": (copied(hand_in()), ALL, "04.1 right."),
        "deleted": (without(hand_in(), FIRST, f"{SECOND}-check"), ALL - 1, "Missing in this notebook"),
        "without": (new_notebook(), 0, "None of the assignment's cells is in this notebook"),
        "foreign": (other, 0, "None of the assignment's cells is in this notebook"),
    }


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Return the folder of a class that was graded, and what nbgrader said of it."""
    folder = tmp_path_factory.mktemp("class")
    assignment.write("04", folder)
    with (folder / "nbgrader_config.py").open("a") as config:
        config.write("c.Run.timeout = 4\n")
    run(folder, "generate_assignment", "04")
    released = nbformat.read(folder / "release" / "04" / "04.ipynb", as_version=4)
    for name, (notebook, *_) in submissions(released, folder).items():
        hand_in(folder, name, nbformat.writes(notebook))
    hand_in(folder, "garbage", "not JSON")
    hand_in(folder, "renamed", nbformat.writes(released), "homework.ipynb")
    said = run(folder, "autograde", "04", fails=True)  # for one is not there under its name
    run(folder, "generate_feedback", "04")
    run(folder, "export", "--to", "marks.csv")
    return folder, said


def hand_in(folder, name, text, file="04.ipynb"):
    path = folder / "submitted" / name / "04" / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def points(folder):
    with (folder / "marks.csv").open() as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def feedback(folder, name):
    """Return the words of a feedback, on one line."""
    text = (folder / "feedback" / name / "04" / "04.html").read_text(encoding="utf-8")
    return " ".join(unescape(re.sub(r"<[^>]*>", "", text)).split())


def test_each_gets_its_points_and_a_reason(course):
    folder, _ = course
    released = nbformat.read(folder / "release" / "04" / "04.ipynb", as_version=4)
    wanted = submissions(released, folder)
    known = {name: score for name, (_, score, _) in wanted.items()} | {"garbage": 0, "renamed": 0}
    assert points(folder) == known
    for name, (_, _, words) in wanted.items():
        assert words in feedback(folder, name), name
    assert "This file cannot be read as a notebook." in feedback(folder, "garbage")


def test_a_file_of_another_name_is_named(course):
    assert re.search(r"Skipping unknown notebook: .*renamed/04/homework\.ipynb", course[1])


def test_neither_release_nor_feedback_give_an_answer_away(course):
    folder, _ = course
    released = (folder / "release" / "04" / "04.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in released
    for question in questions_of("04").values():
        assert question.solution not in unescape(released)
        assert question.because not in feedback(folder, "empty")


def test_what_the_class_did_not_hand_in_is_as_it_was(course):
    folder, _ = course
    source = nbformat.read(folder / "source" / "04" / "04.ipynb", as_version=4)
    assert source.cells == assignment.source_notebook("04").cells
