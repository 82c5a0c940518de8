"""What users read and see: labels, menus, questions, exercises, hints, solutions, figures, defaults, errors.

`python tests/stored_texts.py` writes them to texts.txt, which a test compares with what is said now: a number
in a sentence is as easily wrong as one in a formula, and a colour as a name. Read the difference before you
commit it.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.artist import Artist
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from refusals import refusals
from torch import nn

import course_utils
from course_utils import demos, plotting
from course_utils.doctor import initialize_
from course_utils.doctor.findings import LAWS
from course_utils.doctor.plot import plot_diagnosis
from course_utils.exercises.clinic import PATIENTS, clinic_patient, hint, solution
from course_utils.exercises.questions import NOTEBOOKS, questions_of
from course_utils.exercises.signs import MEANINGS
from course_utils.playground import Playground
from course_utils.playground.engine import make_task
from course_utils.playground.experiments import EXPERIMENTS
from course_utils.playground.picture import Picture

STORED = Path(__file__).with_name("texts.txt")
SHOWN = ("description", "tooltip", "icon", "options", "min", "max", "step", "readout_format")
NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")
LOOKS = "label color facecolor alpha linestyle linewidth marker markersize fillstyle markevery "
LOOKS += "ha va rotation fontsize position"


def short(value: object) -> str:
    """Return a value as text, numbers to three digits."""
    if isinstance(value, list | tuple | np.ndarray):
        return f"({' '.join(map(short, value))})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def look(artist: Artist) -> str:
    """Return what a thing drawn looks like, and where it lies if it is a text, or a band that is not data."""
    values = [getattr(artist, f"get_{name}")() for name in LOOKS.split() if hasattr(artist, f"get_{name}")]
    if isinstance(artist, PolyCollection) and artist.get_transform() != artist.axes.transData:
        values.append(artist.get_paths()[0].vertices[::8])
    return f"  {type(artist).__name__} {' '.join(map(short, values))}"


def of_a_figure(figure: Figure) -> Iterator[str]:
    """Yield what a figure says, the limits and ticks of its axes, and what all looks like that they hold."""
    yield plotting.describe(figure)
    for ax in figure.axes:
        limits, ticks = (*ax.get_xlim(), *ax.get_ylim()), (*ax.get_xticks(), *ax.get_yticks())
        place = short(ax.get_position().bounds)
        yield f"  limits {short(limits)}, ticks {short(ticks)}, place {place}"
        words = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts, *figure.texts]
        legend = ax.get_legend()
        keys = [*legend.legend_handles, *legend.get_texts()] if legend else []
        drawn = [*ax.lines, *ax.collections, *ax.patches, *words, *keys]
        yield from dict.fromkeys(map(look, drawn))  # once, for the bars of a histogram are many


def of_demos() -> Iterator[str]:
    for name in demos.NAMES:
        figure = getattr(demos, f"{name}_figure")
        yield f"\ndemo {name}: {figure.demo.args[0]}"
        for argument, control in figure.demo.keywords.items():
            yield f"{argument}: {', '.join(f'{k} {v}' for k, v in control.keywords.items() if k in SHOWN)}"
        yield from of_a_figure(figure()[0])
        yield from of_the_ends(figure)


def of_the_ends(figure: Callable) -> Iterator[str]:
    """Yield the words of a demo's title and sentence, # for a number, at both ends or at each option."""
    for argument, control in figure.demo.keywords.items():
        limits = control.keywords
        for value in limits.get("options") or (limits["min"], limits["max"]):
            value = 10.0**value if "FloatLogSlider" in str(control) else value
            drawing, sentence = figure(**{argument: value})
            titles = [ax.get_title() or ax.get_title("left") for ax in drawing.axes]
            yield f"{argument} {short(value)}: " + NUMBER.sub("#", f"{titles} {sentence}")


def of_plots() -> Iterator[str]:
    """Yield what functions that draw make of simple numbers."""
    x, rows = np.arange(30), np.array([[1.0], [2.0], [4.0]]) * np.linspace(1, 2, 30)
    steps = np.repeat(np.arange(300), 3)  # so many that not each window has a marker
    loss = (1.0 + steps) * np.tile([1, 2, 4], 300)
    history = pd.DataFrame({"step": steps, "network": [0, 1, 2] * 300, "loss": loss})
    table = pd.DataFrame({"layer": list("abc"), "fault": ["", "dead", ""], "second_moment": 1.0})
    table["gradient_second_moment"] = 2.0
    for name, draw in {
        "plot_samples": lambda ax: plotting.plot_samples(x, rows, rows[1], ax=ax, label="label"),
        "plot_signal": lambda ax: plotting.plot_signal(rows, rows[1], ax=ax),
        "plot_history": lambda ax: plotting.plot_history(history, ax=ax, label="label"),
        "plot_fan": lambda ax: plotting.plot_fan(rows, *rows, ax=ax),
        "plot_cobweb": lambda ax: plotting.plot_cobweb(np.sqrt, 0.2, 3, stop=2, ax=ax),
        "plot_layer_histograms": lambda ax: plotting.plot_layer_histograms({3: rows}, (0, 9), axes=[ax]),
        "mark_dtype_limits": lambda ax: plotting.mark_dtype_limits([torch.float16], ax=ax),
        "plot_diagnosis": lambda ax: plot_diagnosis(table, axes=[ax, ax.twinx()]),
    }.items():
        figure = Figure()
        draw(figure.subplots())
        yield f"\n{name}"
        yield from of_a_figure(figure)


def of_the_style() -> Iterator[str]:
    """Yield the settings of Matplotlib that the course changes."""
    yield "\nstyle"
    with plt.rc_context(), patch.object(plotting, "set_matplotlib_formats") as formats:
        before = dict(plt.rcParams)
        plotting.use_course_style()
        yield from (f"{name}: {value}" for name, value in plt.rcParams.items() if before[name] != value)
    yield f"pictures: {formats.call_args.args}"


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
    for data, depth in (("moons", 2), ("digits", 20)):
        (line, _), *_ = Picture(make_task(data, 0), depth, 1000).lines.values()
        yield from of_a_figure(line.figure)


def of_the_clinic() -> Iterator[str]:
    for number in PATIENTS:
        patient = clinic_patient(number)
        yield f"\npatient {number}: {patient.complaint}\n{' '.join(repr(patient.model).split())}"
        yield f"{hint(number)}\n{solution(number)}"
    for name, (meaning, _) in MEANINGS.items():
        yield f"{name}: {meaning}"


def four(value: object) -> object:
    """Return what an exercise holds, a number to four digits: the last ones differ between processors."""
    if isinstance(value, Mapping):
        return {key: four(item) for key, item in value.items()}
    return f"{value:.4g}" if isinstance(value, float) else value


def of_the_questions() -> Iterator[str]:
    for number, question in ((n, q) for notebook in NOTEBOOKS for n, q in questions_of(notebook).items()):
        yield f"\nexercise {number} {'*' * question.stars} {question.minutes}: {question.statement}"
        for field, value in vars(question).items():
            if field in ("hints", "because", "solution", "options", "answer", "tolerance", "names"):
                yield f"{field}: {four(value)}"
        for wrong, message in getattr(question, "mistakes", ()):
            yield f"{'mistake' if callable(wrong) else four(wrong)}: {message}"


class Several(nn.Sequential):
    """Modules in a row, of which those that take or return several tensors work on one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self:
            x = part(x, x, x)[0] if isinstance(part, nn.MultiheadAttention) else part(x)
        return x[0]


def of_the_doctor() -> Iterator[str]:
    for name, law in LAWS.items():
        yield f"{name}: {law.fault or 'no fault'}: {law.cause}"
    parts = (
        nn.Linear(4, 8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.LayerNorm(8),
        nn.MultiheadAttention(8, 2),
        nn.LSTM(8, 4),
    )
    done = initialize_(Several(*parts), torch.ones(5, 3, 4))
    yield done.table.to_string(float_format="{:.3g}".format)


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


def is_plain(value: object) -> bool:
    """Return whether a value is a number or a word, or a collection of these alone."""
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return (
        all(map(is_plain, value)) if isinstance(value, tuple | set) else isinstance(value, int | float | str)
    )


def constants_of(module: object) -> Iterator[tuple[str, object]]:
    """Yield name and value of what a module assigns in capitals, sorted where it has no order of its own."""
    assigned = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.Assign)]
    parts = [part for node in assigned for target in node.targets for part in ast.walk(target)]
    for name in (part.id for part in parts if isinstance(part, ast.Name)):
        value = vars(module)[name]
        if name.isupper() and name[0] != "_" and is_plain(value):
            value = sorted(value.items()) if isinstance(value, dict) else value
            yield name, sorted(value) if isinstance(value, set) else value


def of_the_rooms() -> Iterator[str]:
    yield "\nconstants"
    for _, name, _ in pkgutil.walk_packages(course_utils.__path__, "course_utils."):
        if name.count(".") == 2:
            for constant, value in constants_of(importlib.import_module(name)):
                yield f"{name.removeprefix('course_utils.')}.{constant}: {value}"


def of_the_refusals() -> Iterator[str]:
    """Yield what the core says of arguments that do not fit."""
    yield "\nrefusals"
    yield from (f"{type(error).__name__}: {said}" for error, said in refusals())


PARTS = (of_demos, of_plots, of_the_style, of_the_playground, of_the_clinic, of_the_questions, of_the_doctor)
PARTS += (of_the_package, of_the_rooms, of_the_refusals)


def texts() -> str:
    """Return all texts; figures are drawn in Matplotlib's own style, whatever was set before."""
    with plt.rc_context():
        plt.rcdefaults()
        return "\n".join(chain.from_iterable(part() for part in PARTS)) + "\n"


if __name__ == "__main__":
    STORED.write_text(texts(), encoding="utf-8")
