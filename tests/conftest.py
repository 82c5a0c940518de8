"""Settings shared by all tests, the order they run in, and how long each part of them took."""

import math
import os
from collections import Counter
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import pytest
from forked_kernels import forked_kernels

# What is as small as in the tests loses up to a factor of 20 to a second thread when all cores are busy. Set
# before anything counts the cores: torch, NumPy and scikit-learn, here and in the kernels.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COURSE_PROGRESS"] = os.devnull  # nobody's record counts, and nothing is added to it

# What takes longest starts first, so that all workers end together.
LONGEST = ["11_ten_thousand_layers.ipynb", "test_browser.py", "test_recipes.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Time what runs, and fork the kernels of all workers from one process, which ends with the session."""
    config.pluginmanager.register(Clock())
    if not hasattr(config, "workerinput"):
        session = ExitStack()
        session.enter_context(forked_kernels())
        config.add_cleanup(session.close)


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "cells of notebooks that took at most so many seconds are run again after the last"
    parser.addoption("--again", type=float, default=0.2, metavar="SECONDS", help=text)


class Clock:
    """Writes down how long items take; a plugin, for hooks of this file see nothing of the notebooks."""

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        if call.when == "call":
            item.seconds = call.duration


class Again(pytest.Item):
    """The quick cells of a notebook once more, from the last to the first: each gives what is stored."""

    def __init__(self, cells: list[pytest.Item], **given) -> None:
        super().__init__(**given)
        self.cells = cells

    def runtest(self) -> None:
        for cell in reversed(self.cells):  # so that each reads what is there at the end
            if getattr(cell, "seconds", math.inf) <= self.config.option.again:  # inf: it was not chosen
                cell.runtest()

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        return self.cells[0].repr_failure(excinfo)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, then the notebooks, each with its cells again, then the rest."""
    for notebook in dict.fromkeys(item.parent for item in items if item.path.suffix == ".ipynb"):
        cells = [item for item in items if item.parent is notebook]
        items.append(Again.from_parent(notebook, name="its quick cells again", cells=cells))
    order = {name: place for place, name in enumerate(LONGEST, -len(LONGEST))}
    places = {path: place for place, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (order.get(item.path.name, item.path.suffix != ".ipynb"), places[item.path]))


def part(nodeid: str) -> str:
    """Return what a test counts to: its notebook, its view in the browser, or its folder."""
    path = Path(nodeid.partition("::")[0])
    if path.stem == "test_browser":
        return "in the browser: " + ("JupyterLab" if "jupyterlab" in nodeid else "slides")
    return path.stem if path.suffix == ".ipynb" else str(path.parent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many seconds each part took, where several ran."""
    seconds: Counter[str] = Counter()
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[part(report.nodeid)] += report.duration
    if len(seconds) < 2:
        return
    terminalreporter.section(f"seconds of each part, {sum(seconds.values()):.0f} in all")
    lines = [f"{value:6.0f}  {name:45}" for name, value in seconds.most_common()]
    half = (len(lines) + 1) // 2
    for left, right in zip(lines[:half], [*lines[half:], ""], strict=False):
        terminalreporter.write_line((left + right).rstrip())
