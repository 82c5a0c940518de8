"""The package's rules, read from its source: imports in one direction, no global randomness, a cheap root."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils

PACKAGE, TESTS = Path(course_utils.__file__).parent, Path(__file__).parent

# What each module of the core may import from the package. Theory (mean_field and what ends in _laws) and
# experiment (networks, propagation) meet only in rooms, tests and notebooks.
ARROWS = {
    "__init__": set(),
    "checks": set(),
    "activations": {"checks"},
    "quadrature": {"checks"},
    "initializers": {"checks"},
    "comparison": set(),
    "data": set(),
    "training": set(),
    "seeding": set(),
    "sweeps": {"training"},
    "plotting": set(),
    "style": {"plotting"},
    "lsuv": {"initializers"},
    "networks": {"initializers", "activations", "checks"},
    "mean_field": {"activations", "checks", "quadrature"},
    "network_laws": {"activations", "checks", "mean_field", "quadrature"},
    "attention_laws": {"activations", "checks", "mean_field", "quadrature"},
    "time_laws": {"checks"},
    "propagation": {"networks", "activations", "checks"},
    "width_laws": {"checks"},
    "frequency_laws": {"checks"},
}
CORE = set(ARROWS) - {"__init__"}
# What each room may import: the core, itself, and for the exercises the doctor.
ROOMS = {
    "demos": CORE | {"demos"},
    "playground": CORE | {"playground"},
    "doctor": CORE - {"network_laws", "propagation", "style"} | {"doctor"},
    "exercises": CORE | {"doctor", "exercises"},
    "claims": {"claims", "style"},
}

# Calls that draw from or set a generator that nobody passed in.
TORCH_STATE = re.compile(r"torch\.((random|cuda)\.)?(manual_seed|seed|set_rng_state)(_all)?")
TORCH_DRAW = re.compile(r"torch\.(bernoulli|multinomial|normal|poisson|rand(n|int|perm)?(_like)?)")
IN_PLACE_DRAW = re.compile(
    r".*(bernoulli|cauchy|exponential|geometric|normal|orthogonal|random|sparse|uniform)_"
)
NUMPY_GENERATORS = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}


def imports(tree: ast.AST) -> list[tuple[str, str]]:
    """Return the local and the full dotted name of every import, wherever in the module it stands."""
    pairs = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = ".".join(filter(None, ["course_utils" if node.level else "", node.module]))
            pairs += [(alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names]
    return pairs


def allowed(module: str) -> set[str]:
    """Return what `module`, such as "mean_field" or "demos.tanh", may import from the package."""
    room, *inside = module.split(".")
    return ROOMS[room] if inside else ARROWS[module]


def import_complaints(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of `module`."""
    complaints = []
    for _, name in imports(ast.parse(source)):
        top, *rest = name.split(".")
        if top == "course_utils" and (not rest or rest[0] not in allowed(module)):
            complaints.append(f"{module} may not import {name}")
        if top == "ipywidgets" and module.split(".")[0] not in ("style", "demos", "playground", "claims"):
            complaints.append(f"only style, demos, playground and claims import ipywidgets, not {module}")
        if top == "random":
            complaints.append(f"{module} imports the global generator of `random`")
    return complaints


def randomness_complaints(module: str, source: str) -> list[str]:
    """Return the calls in `module` that use a global generator."""
    tree = ast.parse(source)
    full_names = dict(imports(tree))
    complaints = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, *rest = ast.unparse(node.func).split(".")
        name = ".".join([full_names.get(head, head), *rest])
        owner, _, function = name.rpartition(".")
        passed = [*map(ast.unparse, node.args), *(keyword.arg for keyword in node.keywords)]
        draws = TORCH_DRAW.fullmatch(name) or IN_PLACE_DRAW.fullmatch(function)
        if (
            (draws and "generator" not in passed)
            or TORCH_STATE.fullmatch(name)
            or (owner == "numpy.random" and function not in NUMPY_GENERATORS)
        ):
            complaints.append(f"{module}, line {node.lineno}: {name} uses a generator that was not passed in")
    return complaints


MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def test_the_core_and_the_rooms_are_those_of_the_table():
    assert {module for module in MODULES if "." not in module} == set(ARROWS)
    assert {module.split(".")[0] for module in MODULES if "." in module} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_module_follows_the_rules(module: str):
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert import_complaints(module, source) == []
    # Questions run with the global generator seeded, and put back; `seeding` seeds it for cells that use it.
    if not module.startswith(("exercises.questions.", "seeding")):
        assert randomness_complaints(module, source) == []


# Tests of initializers and seeding also show what happens without a generator; benchmarks only measure time.
@pytest.mark.parametrize(
    "path",
    [
        path
        for path in TESTS.rglob("*.py")
        if not path.stem.startswith(("test_initializer", "test_properties", "test_seeding", "benchmarks"))
        and path.parent.name != "zoo"  # models as others write them; they are built from one seed
    ],
    ids=lambda path: path.stem,
)
def test_tests_pass_generators_too(path: Path):
    assert randomness_complaints(path.stem, path.read_text(encoding="utf-8")) == []


def test_importing_the_package_is_cheap():
    code = "import sys, course_utils; print(*{'torch', 'matplotlib', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


@pytest.mark.parametrize(
    "source",
    [
        "import course_utils",
        "import course_utils.propagation",
        "import course_utils.propagation as p",
        "from course_utils import propagation",
        "from course_utils import activations, propagation as p",
        "from course_utils.propagation import simulate",
        "from course_utils import *",
        "from . import propagation",
        "from .propagation import simulate",
        "from course_utils import unheard_of",
        "def f():\n    from course_utils import propagation",
        "import ipywidgets as widgets",
        "from ipywidgets import HTML",
        "import random",
        "from random import gauss",
    ],
)
def test_a_planted_import_is_found(source: str):
    assert import_complaints("mean_field", source)


@pytest.mark.parametrize("module", ["comparison", "playground.panel", "doctor.diagnosis", "exercises.clinic"])
def test_nobody_imports_demos(module: str):
    assert import_complaints(module, "from course_utils import demos")


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.cuda.manual_seed_all(0)",
        "from torch import manual_seed as s\ns(0)",
        "import torch\ntorch.randn(3)",
        "import torch as t\ndef f():\n    return t.randperm(3)",
        "from torch import nn\nnn.init.normal_(weight)",
        "weight.uniform_(-1, 1)",
        "from course_utils.initializers import xavier_normal_\nxavier_normal_(weight)",
        "import numpy as np\nnp.random.seed(0)",
        "import numpy\nnumpy.random.rand(3)",
        "from numpy.random import randn\nrandn(3)",
        "from numpy import random\nrandom.normal()",
    ],
)
def test_a_planted_draw_is_found(source: str):
    assert randomness_complaints("propagation", source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.randn(3, generator=generator)",
        "import torch\ntorch.Generator().manual_seed(0)",
        "weight.normal_(0, 1, generator=generator)",
        "trunc_normal_(weight, 0, 1, -2, 2, generator)",
        "import numpy as np\nrng = np.random.default_rng(0)\nrng.normal(size=3)",
    ],
)
def test_a_generator_passed_in_is_no_fault(source: str):
    assert randomness_complaints("propagation", source) == []
