"""`make mutants`: faults that cosmic-ray plants in the core, one at a time; do the module's tests find them?

`python tests/mutants.py quadrature --seconds 600` takes as large a random sample as fits. A mutant lives in
memory, in a process forked from one that has imported torch: nothing on disk changes. Not for Windows.
"""

import argparse
import importlib.machinery
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401, so that no child imports it anew
import torch
from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parent.parent
# module: its tests
MODULES = {
    "initializers": [
        "test_initializer*.py",
        "test_delta_orthogonal.py",
        "test_looks_linear.py",
        "test_properties.py",
    ],
    "mean_field": ["test_mean_field.py", "test_gains.py"],
    "quadrature": ["test_quadrature.py"],
    "comparison": ["test_comparison*.py"],
    "checks": ["test_checks.py"],
    "seeding": ["test_seeding.py"],
    "doctor.thresholds": ["doctor/test_thresholds.py", "doctor/test_faults.py", "doctor/test_healthy.py"],
    "doctor.measuring": ["doctor/test_experiment.py", "doctor/test_thresholds.py", "doctor/test_faults.py"],
    "exercises.checking": ["exercises/test_questions.py"],
}
# One of each kind: operators of annotations (X | None), and ten replacements of one +, would say little more.
REPLACED = "Binary:Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitAnd_BitXor"
REPLACED += " Comparison:Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_Gt Gt_Lt Is_IsNot IsNot_Is"
REPLACED += " Unary:USub_UAdd Delete_Not Delete_Invert"
NAMES = ["AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"]
NAMES += ["NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop", "ExceptionReplacer"]
TIMES = 5  # a mutant that takes so much longer than the module itself never ends


def operators():
    kind = ""
    for word in REPLACED.split():
        first, _, rest = word.rpartition(":")
        kind = first or kind
        yield get_operator(f"core/Replace{kind}Operator_{rest}")()
    yield from (get_operator(f"core/{name}")() for name in NAMES)


class Places(Visitor):
    """Counts the places where an operator can plant a fault."""

    def __init__(self, operator):
        self.operator, self.count = operator, 0

    def visit(self, node):
        self.count += len(list(self.operator.mutation_positions(node)))
        return node


def places(source):
    """Return (operator, occurrence) of every mutant, shuffled."""
    tree, found = get_ast(source), []
    for operator in operators():
        visitor = Places(operator)
        visitor.walk(tree)
        found += [(operator, k) for k in range(visitor.count)]
    random.Random(0).shuffle(found)
    return found


def difference(source, mutated):
    pairs = enumerate(zip(source.splitlines(), mutated.splitlines(), strict=False), 1)
    return next((f"{k}: {a.strip()}\n      -> {b.strip()}" for k, (a, b) in pairs if a != b), "")


def run_tests(module, source, paths):
    """In a child: import `module` from this source, and end with pytest's code."""
    original = importlib.machinery.SourceFileLoader.get_code

    def get_code(self, name):
        return compile(source, self.path, "exec") if name == module else original(self, name)

    importlib.machinery.SourceFileLoader.get_code = get_code
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]))


def survives(module, source, paths, limit):
    child = os.fork()
    if not child:
        try:
            run_tests(module, source, paths)
        finally:  # whatever escapes kills the mutant
            os._exit(1)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def examine(name, seconds):
    source = (ROOT / "course_utils" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    paths = [str(path) for pattern in MODULES[name] for path in sorted((ROOT / "tests").glob(pattern))]
    start = time.monotonic()
    if not survives(f"course_utils.{name}", source, paths, 600):
        raise SystemExit(f"the tests of {name} fail without a mutant, or take ten minutes")
    alone = time.monotonic() - start
    found, count = places(source), Counter()
    for operator, occurrence in found:
        if time.monotonic() - start > seconds:
            break
        mutated = MutationVisitor.mutate_code(source, operator, occurrence)
        lives = survives(f"course_utils.{name}", mutated, paths, TIMES * alone + 5)
        count[lives] += 1
        if lives:
            print(f"  {difference(source, mutated)}", flush=True)
    print(f"{name}: {count[False]} killed, {count[True]} survived, of {len(found)} mutants", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each module")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    for name in arguments.modules or MODULES:
        examine(name, arguments.seconds)
