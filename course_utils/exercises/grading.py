"""What nbgrader runs a submission with: it stays nbgrader that collects, stores, grades and reports.

A submission runs in a kernel of its own (`confined`), and hands over its answers as numbers and text; they
are judged here, where none of its code runs. So a test cell shows what `check` says, and fails unless that
is "right", whatever the submission prints, patches or breaks; and whatever it is, it gets marks and a reason.
"""

import os
import re
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.exporters import NotebookExporter
from nbconvert.preprocessors import ExecutePreprocessor, Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets import Bool, Dict, Integer

from course_utils.exercises import confined
from course_utils.exercises.asking import Function, Verdict
from course_utils.exercises.confined import MIME
from course_utils.exercises.questions import find
from course_utils.exercises.running import Unreadable

STEPS = ("sanitize_preprocessors", "autograde_preprocessors")
TEST = re.compile(r"exercise-(\d\d)-(\d+)-check")


def judged(number: str, handed: Any) -> Verdict:
    """Return the verdict on what `confined.hand_over` showed; a submission may have shown anything."""
    question = find(number)
    try:
        if handed.get("untouched"):
            return Verdict(False, "not attempted.")
        if "unreadable" in handed:
            raise Unreadable(handed["unreadable"])
        answer = handed["answer"]
        if isinstance(question, Function) and isinstance(answer, list):
            right, words = question.told(tuple(map(float, answer)))
        else:
            right, words = question.judge(answer)
    except Unreadable as reason:
        return Verdict(False, f"cannot be judged: {reason}.")
    except Exception:
        return Verdict(False, "cannot be judged: what was handed over is no answer.")
    return Verdict(right, f"right. {words}" if right else f"not yet. {words}")


class Reader(NotebookExporter):
    """nbgrader's exporter, but a file that is no notebook is an empty one that says so."""

    def from_file(self, file_stream: Any, resources: Any = None, **keywords: Any) -> tuple[str, Any]:
        """Return what the preprocessors make of a file."""
        try:
            notebook = nbformat.read(file_stream, as_version=4)
            nbformat.validate(notebook)
        except Exception as error:
            said = f"This file cannot be read as a notebook. {_first_line(error)}"
            notebook = new_notebook(cells=[new_markdown_cell(said)])
        return self.from_notebook_node(notebook, resources=resources, **keywords)


class Restore(Preprocessor):
    """Take from a submission nothing but its sources: marks of cells, and cells missing, from the release.

    Without it, a cell's tags could keep a test from being run, a changed mark could stop nbgrader for all who
    come after, and deleted cells would leave exercises without marks.
    """

    enabled = Bool(True)

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Return the submission as the released notebook marks it."""
        names = resources["nbgrader"]
        released = nbformat.read(Path("release", names["assignment"], f"{names['notebook']}.ipynb"), 4)
        wanted = {cell.metadata.nbgrader.grade_id: cell for cell in released.cells}
        last = {_name(cell): cell for cell in notebook.cells}  # of cells that were copied the last one counts
        found = [_restored(cell, wanted if cell is last[_name(cell)] else {}) for cell in notebook.cells]
        missing = [cell for name, cell in wanted.items() if name not in last]
        if missing:
            found += [new_markdown_cell(_missing(missing, wanted)), *missing]
        return new_notebook(cells=found, metadata=released.metadata), resources


def _name(cell: NotebookNode) -> str:
    """Return the name that a cell has for nbgrader, if it has one."""
    marks = cell.metadata.get("nbgrader")
    return str(marks.get("grade_id", "")) if isinstance(marks, dict) else ""


def _restored(cell: NotebookNode, wanted: dict[str, NotebookNode]) -> NotebookNode:
    """Return a new cell with this source, marked if it has the name of one that is wanted."""
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    known = wanted.get(_name(cell))
    return make(cell.source, metadata=known.metadata if known else {})


def _missing(missing: list[NotebookNode], wanted: dict[str, NotebookNode]) -> str:
    """Return which cells of the assignment the submission did not have."""
    if len(missing) == len(wanted):
        return "None of the assignment's cells is in this notebook: is it that of another one?"
    names = ", ".join(cell.metadata.nbgrader.grade_id for cell in missing)
    return f"Missing in this notebook, and added again: {names}."


class Kernels(AsyncKernelManager):
    """Starts confined kernels, to be talked to by sockets in their own folder."""

    transport = "ipc"

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return how to start one, in no environment but that of its folder."""
        command = [sys.executable, "-m", confined.__name__, "-f", "{connection_file}"]
        return KernelSpec(argv=command, language="python", display_name="confined")


class Flood(Exception):
    """A submission has printed more than anyone reads."""


class Run(ExecutePreprocessor):
    """Run a submission in a confined kernel, and write under each test what `check` says of the answer."""

    enabled = Bool(True)
    timeout = Integer(30, help="seconds that a cell may take").tag(config=True)
    total = Integer(120, help="seconds that a submission may take").tag(config=True)
    most = Integer(10_000_000, help="characters that a submission may print").tag(config=True)
    interrupt_on_timeout = Bool(True)
    allow_errors = Bool(True)
    raise_on_iopub_timeout = Bool(True)
    error_on_timeout = Dict({"ename": "Late", "evalue": "stopped, for it took too long", "traceback": []})

    def preprocess(self, notebook: NotebookNode, resources: Any, km: Any = None) -> tuple[NotebookNode, Any]:
        """Return the notebook with the outputs of its cells and the verdicts."""
        ended = ""
        with TemporaryDirectory(prefix="submission-", ignore_cleanup_errors=True) as self.folder:
            self.place, self.said, self.until = "", 0, time.monotonic() + self.total
            self.timeout_func = lambda _: max(1, min(self.timeout, round(self.until - time.monotonic())))
            try:
                super().preprocess(notebook, {**resources, "metadata": {"path": self.folder}}, km)
            except Exception as error:  # whatever a submission makes nbclient stumble over
                if not self.place:  # no fault of the submission
                    error.add_note(Path(self.folder, "log").read_text(errors="replace")[-2000:])
                    raise
                ended = f"the submission was stopped in {self.place}, for {_why(error)}"
        _judge_all(notebook.cells, ended)
        return notebook, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Run a cell, and remember which."""
        self.place = _name(cell) or f"cell {index + 1}"
        return super().preprocess_cell(cell, resources, index)

    def create_kernel_manager(self) -> Kernels:
        """Return what starts a confined kernel in a folder of its own."""
        self.km = Kernels(connection_file=f"{self.folder}/kernel.json", config=self.config)
        return self.km

    def start_new_kernel(self, **keywords: Any) -> None:
        """Start the kernel, without what this process has in its environment."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        own = {"HOME": self.folder, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        with Path(self.folder, "log").open("w") as log:
            own_output = {"stdout": log, "stderr": log}
            super().start_new_kernel(env=kept | own, **own_output, **keywords)

    def output(self, outs: list, msg: Any, display_id: Any, cell_index: int) -> NotebookNode | None:
        """Keep an output, unless there have been too many. Raises: Flood then."""
        self.said += len(str(msg["content"]))
        if self.said > self.most:
            raise Flood(f"it printed more than {self.most:,} characters")
        return super().output(outs, msg, display_id, cell_index)

    def on_cell_executed(self, cell: NotebookNode, execute_reply: Any, **_: Any) -> None:
        """Write under a cell that took too long that it did."""
        if execute_reply["content"].get("ename") == "Late":
            cell.outputs.append(new_output("error", **self.error_on_timeout))


def _judge_all(cells: list[NotebookNode], ended: str) -> None:
    """Write the verdict under each test; `ended` says why what comes later was not run."""
    above = ""
    for cell in cells:
        test = TEST.fullmatch(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
        if test:
            number = f"{test[1]}.{test[2]}"
            right, words = _verdict(number, cell, above or ended)
            said = f"{number} {words}"
            error = new_output("error", ename="NotYet", evalue=said, traceback=[said])
            cell.outputs = [new_output("stream", name="stdout", text=f"{said}\n") if right else error]
        elif cell.cell_type == "code":
            above = _error_of(cell)


def _verdict(number: str, cell: NotebookNode, trouble: str) -> Verdict:
    """Return the verdict on what a test cell handed over last; `trouble` is a reason why it could not."""
    shown = [output.get("data") for output in cell.outputs]
    handed = [data[MIME] for data in shown if isinstance(data, dict) and MIME in data]
    if handed:
        return judged(number, handed[-1])
    trouble = trouble or _error_of(cell) or "`check` was not the course's"
    return Verdict(False, f"cannot be judged, for nothing was handed over: {trouble}.")


def _error_of(cell: NotebookNode) -> str:
    """Return what was raised in a cell, in a line."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    return f"{errors[-1].ename}: {errors[-1].evalue}".partition("\n")[0][:200] if errors else ""


def _why(error: Exception) -> str:
    """Return why a submission was stopped."""
    if isinstance(error, DeadKernelError):
        return "its kernel ended, or used more time or memory than it may"
    return "it did not end when told to" if isinstance(error, CellTimeoutError) else _first_line(error)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def configure(config: Any) -> None:
    """Let nbgrader read, run and release as this module does; for its configuration file."""
    from nbgrader.converters import Autograde
    from nbgrader.preprocessors import Execute

    warnings.filterwarnings("ignore", module=r"nbgrader\.api")  # of SQLAlchemy, for each submission anew
    steps = {name: Autograde.class_traits()[name].default() for name in STEPS}
    config.Autograde.exporter_class = Reader
    config.Autograde.sanitize_preprocessors = [Restore, *steps["sanitize_preprocessors"]]
    config.Autograde.autograde_preprocessors = [
        Run if step is Execute else step for step in steps["autograde_preprocessors"]
    ]
    config.ClearSolutions.code_stub = {"python": "# Replace the dots above."}
    if open_here := confined.not_held():
        print(f"This machine does not keep submissions from {', '.join(open_here)}.", file=sys.stderr)
