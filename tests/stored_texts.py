"""What users read: labels, tooltips, menus, exercises, hints, solutions, what figures say, and defaults.

`python tests/stored_texts.py` writes them to texts.txt, which a test compares with what is said now: a number
in a sentence is as easily wrong as one in a formula. Read the difference before you commit it.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import ipywidgets as widgets

import course_utils
from course_utils import demos
from course_utils.doctor.findings import LAWS
from course_utils.exercises.clinic import PATIENTS, clinic_patient, hint, solution
from course_utils.exercises.questions import NOTEBOOKS, questions_of
from course_utils.exercises.signs import MEANINGS
from course_utils.playground import Playground
from course_utils.playground.experiments import EXPERIMENTS
from course_utils.plotting import describe

STORED = Path(__file__).with_name("texts.txt")
SHOWN = ("description", "tooltip", "options", "min", "max", "step", "readout_format")


def of_demos() -> Iterator[str]:
    for name in demos.NAMES:
        figure = getattr(demos, f"{name}_figure")
        yield f"\ndemo {name}: {figure.demo.args[0]}"
        for argument, control in figure.demo.keywords.items():
            yield f"{argument}: {', '.join(f'{k} {v}' for k, v in control.keywords.items() if k in SHOWN)}"
        yield describe(figure()[0])


def of_widgets(widget: widgets.Widget) -> Iterator[str]:
    said = {name: value for name in SHOWN if (value := getattr(widget, name, None)) not in (None, "")}
    if "description" in said:
        yield ", ".join(f"{name} {value}" for name, value in said.items())
    for child in getattr(widget, "children", ()):
        yield from of_widgets(child)


def of_the_playground() -> Iterator[str]:
    yield "\nplayground"
    yield from of_widgets(Playground())
    for experiment in EXPERIMENTS:
        yield f"{experiment}\n"


def of_the_clinic() -> Iterator[str]:
    for number in PATIENTS:
        yield f"\npatient {number}: {clinic_patient(number).complaint}"
        yield f"{hint(number)}\n{solution(number)}"
    for name, (meaning, _) in MEANINGS.items():
        yield f"{name}: {meaning}"


def of_the_questions() -> Iterator[str]:
    for number, question in ((n, q) for notebook in NOTEBOOKS for n, q in questions_of(notebook).items()):
        yield f"\nexercise {number} {'*' * question.stars} {question.minutes}: {question.statement}"
        for field, value in vars(question).items():
            if field in ("hints", "because", "solution", "options", "answer", "tolerance", "names"):
                yield f"{field}: {f'{value:.4g}' if isinstance(value, float) else value}"
        for wrong, message in getattr(question, "mistakes", ()):
            yield f"{f'{wrong:.4g}' if isinstance(wrong, float) else 'mistake'}: {message}"


def of_the_doctor() -> Iterator[str]:
    for name, law in LAWS.items():
        yield f"{name}: {law.fault or 'no fault'}: {law.cause}"


def defaults(function: Callable) -> str:
    """Return the arguments that need not be given, with their defaults."""
    optional = (p for p in inspect.signature(function).parameters.values() if p.default is not p.empty)
    return ", ".join(f"{p.name}={getattr(p.default, '__name__', repr(p.default))}" for p in optional)


def of_the_package() -> Iterator[str]:
    yield "\ndefaults"
    for _, name, _ in pkgutil.walk_packages(course_utils.__path__, "course_utils."):
        for function in vars(importlib.import_module(name)).values():
            public = callable(function) and not getattr(function, "__name__", "_").startswith("_")
            raised = isinstance(function, type) and issubclass(function, Exception)
            if public and not raised and function.__module__ == name and (said := defaults(function)):
                yield f"{name.removeprefix('course_utils.')}.{function.__name__}: {said}"


def texts() -> str:
    """Return all texts."""
    parts = [
        *of_demos(),
        *of_the_playground(),
        *of_the_clinic(),
        *of_the_questions(),
        *of_the_doctor(),
        *of_the_package(),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    STORED.write_text(texts(), encoding="utf-8")
