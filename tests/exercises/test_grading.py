"""A submission decides nothing: what it hands over is judged, what it may not do fails, it is told why."""

import io
import json
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.exercises import confined
from course_utils.exercises.assignment import END, source_notebook
from course_utils.exercises.confined import MIME
from course_utils.exercises.grading import Reader, Restore, Run, judged
from course_utils.exercises.questions import find

linux = pytest.mark.skipif(sys.platform != "linux", reason="grading is for Linux")
held = pytest.mark.skipif(confined.not_held() != [], reason="this machine does not hold everything")


def released():
    """Return the assignment of notebook 04 as a class gets it, but for checksums."""
    notebook = source_notebook("04")
    for cell in notebook.cells:
        before, _, rest = cell.source.partition("### BEGIN")
        cell.source = before + rest.partition(END)[2]
    return notebook


def submission(**answers):
    """Return a submission with these sources: `first` stands behind the set-up, `e1` is exercise 1."""
    notebook = released()
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.nbgrader.grade_id.replace("exercise-04-", "e"), cell.source)
    notebook.cells.insert(2, new_code_cell(answers.get("first", "")))
    return notebook


def verdicts(notebook, **settings):
    """Return the verdicts on a submission, by its exercises, and whether each is no error."""
    run = Run(**settings)
    notebook, _ = run.preprocess(notebook, {})
    found = {}
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-check"):
            [output] = cell.outputs
            found[cell.id.split("-")[2]] = output.get("text", output.get("evalue"))
            assert (output.output_type == "stream") == (" right. " in found[cell.id.split("-")[2]])
    return found


def handed(number, given):
    """Return what the kernel hands over of an answer, as it arrives."""
    return json.loads(json.dumps({"answer": confined._plain(number, given)}))


# What is judged.


@pytest.mark.parametrize("number", ["04.1", "04.7", "01.5", "01.8"])
def test_right_and_wrong_answers_survive_being_handed_over(number):
    question = find(number)
    right = getattr(question, "right", None) or question.answer
    assert judged(number, handed(number, right)).right
    for wrong, message in getattr(question, "mistakes", ()):
        assert judged(number, handed(number, wrong)) == (False, f"not yet. {message}")


NONSENSE = (
    None,
    [],
    3,
    {},
    "right",
    {"answer": None},
    {"answer": [1e400]},
    {"answer": [10**400]},
    {"answer": ["x"] * 4},
    {"answer": [[[]]]},
    {"answer": {"ones": "x", "normal": None}},
    {"answer": float("nan")},
    {"answer": "04.1 right."},
    {"answer": True},
    {"untouched": True, "answer": 2.0},
    {"unreadable": {}},
)


@pytest.mark.parametrize("number", ["04.1", "04.7", "01.5", "01.8", "04.9"])
def test_nonsense_is_never_right(number):
    for nonsense in NONSENSE:
        right, words = judged(number, nonsense)
        assert not right
        assert words.endswith(".")


# What is read.


def test_a_file_that_is_no_notebook_becomes_one_that_says_so():
    for text in ("", "not JSON", "{}", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}'):
        made, _ = Reader().from_file(io.StringIO(text))
        [cell] = nbformat.reads(made, 4).cells
        assert cell.source.startswith("This file cannot be read as a notebook. ")


@pytest.fixture
def restored(tmp_path, monkeypatch):
    """Return what `Restore` makes of a notebook."""
    (tmp_path / "release" / "04").mkdir(parents=True)
    nbformat.write(released(), tmp_path / "release" / "04" / "04.ipynb")
    monkeypatch.chdir(tmp_path)
    names = {"nbgrader": {"assignment": "04", "notebook": "04"}}
    return lambda notebook: Restore().preprocess(notebook, names)[0]


def named(notebook):
    return [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]


def test_marks_and_tags_of_a_submission_do_not_count(restored):
    notebook, wanted = released(), [cell.metadata for cell in released().cells]
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution"]
        cell.metadata.nbgrader |= {"schema_version": 99, "points": 1000, "locked": False}
    assert [cell.metadata for cell in restored(notebook).cells] == wanted


def test_missing_cells_are_added_and_of_copies_the_last_counts(restored):
    notebook, names = released(), named(released())
    first, copy = (cell for cell in (notebook.cells[3], new_code_cell("answer_1 = 2.0")))
    copy.metadata = first.metadata
    notebook.cells = [*notebook.cells[:4], copy, *notebook.cells[5:]]
    made = restored(notebook)
    assert sorted(named(made)) == sorted(names)
    assert "nbgrader" not in made.cells[3].metadata
    assert made.cells[4].source == "answer_1 = 2.0"
    assert made.cells[-2].source == "Missing in this notebook, and added again: exercise-04-1-check."


@pytest.mark.parametrize("cells", [[], [new_code_cell("1 + 1", metadata={"nbgrader": 3})]])
def test_another_notebook_is_told_so(restored, cells):
    made = restored(new_notebook(cells=cells))
    assert "is it that of another one?" in made.cells[len(cells)].source
    assert named(made) == named(released())


# What is run.

RIGHT = {
    "e1": "answer_1 = 2.0",
    "e2": "answer_2 = torch.tensor(1.1675)",
    "e7": "def he_uniform_(w, rng):\n    b = (6 / w[0].numel()) ** 0.5\n    w.uniform_(-b, b, generator=rng)",
}


@linux
def test_right_wrong_and_untouched_answers_get_what_check_says():
    found = verdicts(submission(**RIGHT, e3="answer_3 = 1.0", e4="answer_4 = 1 / 0", e5="answer_5 = print"))
    assert found.pop("1").startswith("04.1 right. Half of E z² = 4")
    assert found.pop("7") == "04.7 right. The variance is 2/fan_in on both shapes.\n"
    assert found.pop("2").startswith("04.2 right. ")
    assert found.pop("3").startswith("04.3 not yet. So it would be in a linear network.")
    assert found.pop("4").endswith("nothing was handed over: ZeroDivisionError: division by zero.")
    assert found.pop("5").startswith("04.5 cannot be judged: a number is expected; got builtin_function")
    assert found == {"6": "04.6 not attempted.", "8": "04.8 not attempted."}


FAKES = {
    "replaces check": 'check = lambda number, answer: print(number, "right.")',
    "replaces tests": 'get_ipython().input_transformers_cleanup.append(lambda lines: ["1.0\\n"])',
    "shows a verdict": f"check = lambda *_: display({{{MIME!r}: {{'right': True}}}}, raw=True)",
}


@linux
@pytest.mark.parametrize("fake", FAKES)
def test_a_fake_verdict_does_not_count(fake):
    found = verdicts(submission(first=FAKES[fake], e1="answer_1 = 7"))
    assert not any(" right. " in words for words in found.values())


ATTEMPTS = """
import os, signal, socket, subprocess
from pathlib import Path
OUTSIDE = Path({outside!r})
attempts = [
    lambda: OUTSIDE.read_text(),
    lambda: OUTSIDE.write_text("changed"),
    lambda: OUTSIDE.unlink(),
    lambda: OUTSIDE.rename(OUTSIDE.with_name("other")),
    lambda: os.truncate(OUTSIDE, 0),
    lambda: list(OUTSIDE.parent.iterdir()),
    lambda: os.symlink(OUTSIDE, "link") or Path("link").read_text(),
    lambda: os.fork() or os._exit(0),
    lambda: subprocess.run(["true"]),
    lambda: os.kill(os.getppid(), signal.SIGKILL),
    lambda: socket.create_connection(("127.0.0.1", {port})),
]
held = 0
for attempt in attempts:
    try:
        attempt()
    except OSError:
        held += 1
os.chmod(OUTSIDE, 0)
Path("mine").write_text("allowed")
answer_1 = 2.0 if held == len(attempts) and Path("mine").read_text() else held
"""


@held
def test_files_processes_and_connections_are_out_of_reach(tmp_path):
    import socket

    outside = tmp_path / "marks"
    outside.write_text("secret")
    outside.chmod(0o640)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = ATTEMPTS.format(outside=str(outside), port=server.getsockname()[1])
        found = verdicts(submission(e1=code))
    assert " right. " in found["1"]
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("secret", 0o640)


LIMITS = """
import errno, resource, threading
from pathlib import Path
names = ("CPU", "DATA", "FSIZE", "CORE")
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
status = [int(status[name], 16) for name in ("NoNewPrivs", "CapEff", "CapPrm", "Seccomp")]
done = []
thread = threading.Thread(target=done.append, args=[1])
thread.start()
thread.join()
try:
    os.fork()
except OSError as error:
    done.append(error.errno)
asked = [(150, 150), (4 << 30, 4 << 30), (64 << 20, 64 << 20), (0, 0)]
answer_1 = 2.0 if (limits, status, done) == (asked, [1, 0, 0, 2], [1, errno.EPERM]) else 0
"""


@held
def test_the_operating_system_limits_what_a_submission_takes():
    assert " right. " in verdicts(submission(first="import os", e1=LIMITS))["1"]


CALLS = """
import ctypes, errno, platform
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)

def fails(*call):
    found = libc.syscall(*map(ctypes.c_long, call))
    if found == 0 and call[0] in (57, 58):
        os._exit(0)  # the child that there should not be
    return found and ctypes.get_errno()

Path("mine").touch()
before, file, folder = os.stat("mine"), os.open("mine", os.O_RDONLY), os.open(".", os.O_RDONLY)
os.chmod("mine", 0), os.fchmod(file, 0), os.chmod("mine", 0, dir_fd=folder)
os.chown("mine", 7, 7), os.fchown(file, 7, 7), os.lchown("mine", 7, 7), os.chown("mine", 7, 7, dir_fd=folder)
kept = os.stat("mine") == before and fails(452, -1, 0, 0, 0) == 0 and fails(435, 0, 0) == errno.ENOSYS
if platform.machine() == "x86_64":
    kept = kept and {fails(57), fails(58), fails(0x40000000 + 39), fails(0x40000000)} == {errno.EPERM}
answer_1 = 2.0 if kept else 0
"""


@held
def test_calls_that_change_owners_do_nothing_and_those_that_fork_fail_one_by_one():
    assert " right. " in verdicts(submission(first="import os", e1=CALLS))["1"]


def test_how_long_a_submission_may_run_and_how_much_it_may_print():
    run = Run()
    assert (run.timeout, run.total, run.most) == (30, 120, 10_000_000)
    assert run.enabled
    assert Restore().enabled
    assert run.interrupt_on_timeout
    assert run.allow_errors
    assert run.raise_on_iopub_timeout


@linux
def test_a_submission_may_take_so_long_in_all():
    slow = "import time\ntime.sleep(4)"
    found = verdicts(submission(**RIGHT, e3=slow, e4=slow), total=5)
    assert " right. " in found["1"]
    assert "Late: stopped, for it took too long" in found["4"]


DEAF = "import time\nwhile True:\n    try:\n        time.sleep(99)\n    except BaseException:\n        pass"
ENDS = {
    "deaf": (DEAF, "stopped in exercise-04-3, for it did not end when told to"),
    "flood": ("while True: print('x' * 1000)", "it printed more than 100,000 characters"),
    "ends": ("import os\nos._exit(0)", "stopped in exercise-04-3, for its kernel ended, or used more"),
}


@linux
@pytest.mark.parametrize("end", ENDS)
def test_what_cannot_be_interrupted_is_ended_and_what_was_right_counts(end):
    code, said = ENDS[end]
    found = verdicts(submission(**RIGHT, e3=code), timeout=3, most=100_000)
    assert " right. " in found["1"]
    assert said in found["3"]
    assert said in found["7"]


@linux
def test_what_can_be_interrupted_is_and_later_answers_count():
    found = verdicts(submission(**RIGHT, e3="while True: pass", e4="much = bytes(10**11)"), timeout=3)
    assert "Late: stopped, for it took too long" in found["3"]
    assert "MemoryError" in found["4"]
    assert " right. " in found["7"]


@linux
def test_a_kernel_that_does_not_start_is_no_fault_of_the_submission(monkeypatch):
    monkeypatch.setattr(confined, "__name__", "no_such_module")
    with pytest.raises(RuntimeError, match="Kernel died") as raised:
        verdicts(submission())
    assert "No module named" in raised.value.__notes__[0]
