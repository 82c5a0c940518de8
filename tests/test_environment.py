"""requirements.txt, environment.yml and pyproject.toml describe one environment."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT, PINS, CONDA = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("pyproject.toml", "requirements.txt", "environment.yml")
)
# Elsewhere conda-forge uses PyPI's name.
CONDA_NAMES = {
    "jupyterlab-rise": "jupyterlab_rise",
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "torch": "pytorch",
}


def python_range(pyproject: str) -> Requirement:
    return Requirement("python" + tomllib.loads(pyproject)["project"]["requires-python"])


def direct_dependencies(pyproject: str) -> list[Requirement]:
    project = tomllib.loads(pyproject)
    return [Requirement(r) for r in project["project"]["dependencies"] + project["dependency-groups"]["test"]]


def entries(pins: str) -> list[str]:
    """Return the entries of requirements.txt, each on one line."""
    return [line for line in pins.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def pin_complaints(pyproject: str, pins: str) -> list[str]:
    """Every entry pins one version by its hashes, and every direct dependency has a pin within its range."""
    complaints, versions = [], {}
    for entry in entries(pins):
        line, *hashes = (part.strip() for part in entry.split("--hash=sha256:"))
        if not hashes or any(re.fullmatch("[0-9a-f]{64}", digest) is None for digest in hashes):
            complaints.append(f"no hash, or one that is none: {line!r}")
        try:
            requirement = Requirement(line)
            [pin] = requirement.specifier
        except (InvalidRequirement, ValueError):
            complaints.append(f"not one pinned package: {line!r}")
            continue
        if pin.operator != "==" or pin.version.endswith("*"):
            complaints.append(f"not an exact version: {line!r}")
        else:
            versions.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    for requirement in direct_dependencies(pyproject):
        if requirement.name not in versions:
            complaints.append(f"{requirement.name} has no pin")
        complaints += [
            f"{requirement.name} is pinned to {version}, outside {requirement.specifier}"
            for version in versions.get(requirement.name, [])
            if version not in requirement.specifier
        ]
    return complaints


def conda_complaints(pyproject: str, conda: str) -> list[str]:
    """environment.yml has pyproject's dependencies and Python with the same ranges, and installs the package.

    Ranges that were merely compatible would leave pip something to install over conda's packages.
    """
    environment = yaml.safe_load(conda)
    *packages, pip, pip_section = environment["dependencies"]
    found = {(r.name, r.specifier) for r in map(Requirement, packages)}
    declared = [python_range(pyproject), *direct_dependencies(pyproject)]
    wanted = {(CONDA_NAMES.get(r.name, r.name), r.specifier) for r in declared}
    complaints = [f"missing: {name} {specifier}" for name, specifier in wanted - found]
    complaints += [f"not in pyproject.toml: {name} {specifier}" for name, specifier in found - wanted]
    if environment["channels"] != ["conda-forge"]:
        complaints.append(f"channels: {environment['channels']}")
    if (pip, pip_section) != ("pip", {"pip": ["-e ."]}):
        complaints.append(f"course_utils is not installed: {pip_section}")
    return complaints


def test_the_pins_agree_with_pyproject():
    assert pin_complaints(PYPROJECT, PINS) == []


def test_extras_are_pinned_beside_the_pins():
    pinned = {canonicalize_name(line.split("==")[0]) for line in entries(PINS)}
    for extra in tomllib.loads(PYPROJECT)["project"]["optional-dependencies"].values():
        for requirement in map(Requirement, extra):
            assert [pin.operator for pin in requirement.specifier] == ["=="]
            assert canonicalize_name(requirement.name) not in pinned


def test_the_conda_environment_agrees_with_pyproject():
    assert conda_complaints(PYPROJECT, CONDA) == []


def planted(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("\ntorch==", "\ntorch>=", "not an exact version: 'torch>="),
        ("\ntorch==2.13.0", "\ntorch==2.13.*", "not an exact version: 'torch==2.13.*'"),
        ("\ntorch==2.13.0", "\ntorch", "not one pinned package: 'torch'"),
        ("\ntorch==2.13.0", "\n--pre", "not one pinned package: '--pre"),
        ("\ntorch==2.13.0", "\nnumpy==2.4.6", "torch has no pin"),
        ("\ntorch==2.13.0 \\", "\nleft==1.0\ntorch==2.13.0 \\", "no hash, or one that is none: 'left==1.0'"),
        ("\ntorch==2.13.0", "\ntorch==3.0.0", "torch is pinned to 3.0.0, outside <3,>=2.13"),
    ],
)
def test_a_fault_in_the_pins_is_found(old: str, new: str, complaint: str):
    assert any(c.startswith(complaint) for c in pin_complaints(PYPROJECT, planted(PINS, old, new)))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("- pytorch >=2.13,<3", "- pytorch >=2.13", "missing: pytorch <3,>=2.13"),
        ("- pytorch >=2.13,<3", "- pandas >=3", "not in pyproject.toml: pandas >=3"),
        ("- python >=3.11", "- python >=3.10", "missing: python >=3.11"),
        ("- conda-forge", "- defaults", "channels: ['defaults']"),
        ("- -e .", "- numpy", "course_utils is not installed"),
    ],
)
def test_a_fault_in_the_conda_environment_is_found(old: str, new: str, complaint: str):
    assert any(c.startswith(complaint) for c in conda_complaints(PYPROJECT, planted(CONDA, old, new)))
