"""What CONTRIBUTING says about adding things is tried in a copy of the course: the tests find each newcomer.

All are added to one copy, and their tests run at once; then each gets a fault that these tests have to find.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.exercises.clinic import PATIENTS

ROOT = Path(__file__).parent.parent

ACTIVATION = """
softplus = Activation("softplus", torch.nn.functional.softplus, torch.sigmoid, kinks=())
"""
INITIALIZER = '''

@torch.no_grad()
def laplace_(tensor: Tensor, std: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from the Laplace law of mean 0 and standard deviation `std`."""
    _check(tensor, std=std)
    signs = torch.rand(tensor.shape, generator=generator).sub_(0.5).sign_()
    return tensor.exponential_(generator=generator).mul_(std / math.sqrt(2)).mul_(signs)
'''
DEMO = '''"""How fast a power grows."""

import numpy as np

from course_utils.demos import canvas, demo


@demo.asks(
    "Which factor makes a hundred in ten layers?",
    factor=demo.slider("factor", 1.0, 2.0, 0.1),
    depth=demo.integers("depth (L)", 1, 10, 1),
)
def power_figure(factor: float = 1.5, depth: int = 10) -> demo.Drawing:
    """Draw factor**l."""
    figure, (ax,) = canvas.new_figure()
    ax.plot(factor ** np.arange(depth + 1), "k--")
    ax.set(xlabel="layer (l)", ylabel="signal (h)", title="A power")
    return figure, f"After {depth} layers {factor**depth:.3f}."
'''
DEMO_TEST = '''"""The power against repeated products."""

from drawing_checks import check_line, check_numbers, check_words

SETTINGS = {"factor": 2.0, "depth": 3}
CONTROLS = {"factor": (1.0, 2.0, 11), "depth": (1, 10, 10)}
LABELS = ["factor", "depth (L)"]


def check(figure, sentence):
    check_line(figure.axes[0].lines[0], [1, 2, 4, 8])
    check_words(figure.axes[0], "layer (l)", "signal (h)", "A power")
    check_numbers(sentence, 3, "8.000")
'''
PATIENT = """

@_patient(
    "I doubled them all.",
    ("exploding signal", "0"),
    network=healthy.deep(12),
    plant=_scaled(lambda layer: 3.0),
    look="Compare second_moment from row to row.",
    why="All weights are three times too large.",
)
def _(model, inputs):
    for layer in model[::2]:
        layer.weight.div_(3)
"""
NEW = "23"
NOTEBOOK = f"notebooks/{NEW}_a_new_question.ipynb"
MODEL = "09_orthogonal_weights.ipynb"  # the new notebook is its copy, and so are its rows
README_ROW = re.search(
    rf"^.*\(notebooks/{MODEL}\).*\n", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
)[0]

# The file that is touched, what is added to its end, what to write for what as a fault, which tests find it.
RECIPES = {
    "activation": (
        "course_utils/activations.py",
        ACTIVATION,
        ("torch.sigmoid, kinks=())", "torch.tanh, kinks=())"),
        "softplus",
    ),
    "initializer": (
        "course_utils/initializers.py",
        INITIALIZER,
        ("exponential_(generator=generator)", "exponential_()"),
        "laplace_",
    ),
    "demo": ("course_utils/demos/power.py", DEMO, ("plot(factor", "plot(1.01 * factor"), "power"),
    "patient": ("course_utils/exercises/cases.py", PATIENT, ("div_(3)", "div_(2)"), f"[{len(PATIENTS) + 1}]"),
    "notebook": (
        "README.md",
        README_ROW.replace(f"notebooks/{MODEL}", NOTEBOOK),
        (f"({NOTEBOOK})", "(notebooks/22)"),
        "23_a_new_question",
    ),
}
TESTS = (
    "test_activations.py",
    "test_initializers.py",
    "demos/test_demos.py",
    "exercises",
    "test_notebooks.py",
)
CACHES = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def add_to_the_map(path: Path) -> None:
    """Give the new notebook rows below those of its model."""
    start = nbformat.read(path, as_version=4)
    for cell in start.cells:
        for row in [
            line for line in cell.source.splitlines() if line.startswith("|") and f"({MODEL})" in line
        ]:
            cell.source = cell.source.replace(row, f"{row}\n{row.replace(MODEL, Path(NOTEBOOK).name)}")
    nbformat.write(start, path)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the course with all newcomers."""
    copy = tmp_path_factory.mktemp("course")
    for name in ("course_utils", "tests", "notebooks", ".github"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_check*")
        )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for path, text, *_ in RECIPES.values():
        with (copy / path).open("a", encoding="utf-8") as file:
            file.write(text)
    (copy / "tests/demos/test_power.py").write_text(DEMO_TEST, encoding="utf-8")
    text = (ROOT / "notebooks" / MODEL).read_text(encoding="utf-8")
    text = re.sub(rf"\b{MODEL[:2]}\.(\d)\b", rf"{NEW}.\1", text)  # the numbers of its exercises
    (copy / NOTEBOOK).write_text(text, encoding="utf-8")
    questions = copy / "course_utils" / "exercises" / "questions"
    shutil.copy(questions / f"nb{MODEL[:2]}.py", questions / f"nb{NEW}.py")
    add_to_the_map(copy / "notebooks/00_start_here.ipynb")
    return copy


def outcomes(course: Path) -> dict[str, set[str]]:
    """Return, of the tests of each newcomer, whether they passed or failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider"]
    newcomers = " or ".join(keyword for *_, keyword in RECIPES.values())
    run = subprocess.run(
        [*command, "-k", newcomers, *(f"tests/{name}" for name in TESTS)],
        cwd=course,
        env=os.environ | {"PYTHONPATH": str(course), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    lines = re.findall(r"^(PASSED|FAILED) (.*)$", run.stdout, re.MULTILINE)
    return {name: {o for o, test in lines if keyword in test} for name, (*_, keyword) in RECIPES.items()}


def test_the_tests_find_newcomers_and_are_content(course: Path):
    assert outcomes(course) == {name: {"PASSED"} for name in RECIPES}


def test_a_fault_in_a_newcomer_is_found(course: Path):
    for path, text, (right, wrong), _ in RECIPES.values():
        file = course / path
        assert right in text
        source = file.read_text(encoding="utf-8")
        file.write_text(source.removesuffix(text) + text.replace(right, wrong), encoding="utf-8")
    assert [name for name, seen in outcomes(course).items() if "FAILED" not in seen] == []
