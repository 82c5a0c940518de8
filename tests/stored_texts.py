"""What users of the rooms read: labels, tooltips, menus, questions, hints, solutions, and what figures say.

`python tests/stored_texts.py` writes them to texts.txt, which a test compares with what is said now: a number
in a sentence is as easily wrong as one in a formula. Read the difference before you commit it.
"""

from collections.abc import Iterator
from pathlib import Path

import ipywidgets as widgets

from course_utils import demos
from course_utils.doctor.findings import LAWS
from course_utils.exercises import PATIENTS, clinic_patient, hint, solution
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


def of_the_doctor() -> Iterator[str]:
    for name, law in LAWS.items():
        yield f"{name}: {law.fault or 'no fault'}: {law.cause}"


def texts() -> str:
    """Return all texts."""
    parts = [*of_demos(), *of_the_playground(), *of_the_clinic(), *of_the_doctor()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    STORED.write_text(texts(), encoding="utf-8")
