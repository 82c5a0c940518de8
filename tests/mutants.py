"""`make mutants`: faults that cosmic-ray plants in a module, one at a time; do the module's tests find them?

`python tests/mutants.py quadrature --seconds 600` takes as large a random sample as fits. A mutant stands in
a copy of the tree, where its tests import it and the processes that they start do; they run in a process
forked from one that has imported torch. Not for Windows.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator
from forked_kernels import MODULES as ALREADY_IMPORTED

ROOT = Path(__file__).parent.parent
# module: its tests, in the order in which they find most in least time
DIAGNOSES = "experiment pools diagnosis faults table thresholds* healthy left_alone evidence relations"
DIAGNOSES += " heads zeros tried never_learns products"
# Laws and experiments are also held to one another by the demos that draw both.
DRAWN = "demos::test_lines_names_and_sentence_are_what_they_say"
OF_DEMOS = (
    f"demos: {DRAWN} fan first_loss first_step gain gradient length norm pair product pruning pyramid stream"
)
TESTS = {
    "activations": "activations gains texts",
    "attention_laws": f"attention_laws demos: {DRAWN} : texts",
    "checks": "checks initializer_errors activations mean_field",
    "comparison": "comparison comparison_edges texts",
    "frequency_laws": f"frequency_laws demos: {DRAWN} : texts",
    "initializers": "initializer* delta_orthogonal looks_linear properties texts",
    "lsuv": "lsuv texts",
    "mean_field": "mean_field* gains texts",
    "network_laws": f"network_laws {OF_DEMOS} tanh : theory_meets_simulation texts",
    "networks": f"networks demos: {DRAWN} : texts",
    "propagation": f"propagation {OF_DEMOS} tanh relu : theory_meets_simulation texts",
    "quadrature": "quadrature",
    "seeding": "seeding texts",
    "sweeps": "sweeps texts",
    "time_laws": f"time_laws demos: {DRAWN} : texts",
    "training": "training texts",
    "width_laws": f"width_laws demos: {DRAWN} : texts",
    "doctor.defaults": f"doctor: defaults table {DIAGNOSES} initialize : texts",
    "doctor.diagnosis": f"doctor: diagnosis plot {DIAGNOSES} no_trace put_back : texts",
    "doctor.experiment": f"doctor: refining shares graph {DIAGNOSES} no_trace models_of_others : texts",
    "doctor.faults": f"doctor: faults {DIAGNOSES} models_of_others : texts",
    "doctor.findings": f"doctor: findings diagnosis faults {DIAGNOSES} : texts",
    "doctor.graph": f"doctor: graph thresholds_of_relations {DIAGNOSES} put_back initialize",
    "doctor.initialize": "doctor: initialize left_alone on_purpose put_back models* relations : texts",
    "doctor.measuring": f"doctor: measuring {DIAGNOSES}",
    "doctor.recognizing": f"doctor: recognizing table left_alone {DIAGNOSES} initialize models_of_others",
    "doctor.recording": f"doctor: recording graph no_trace {DIAGNOSES} put_back models_of_others initialize",
    "doctor.relations": f"doctor: thresholds_of* evidence findings {DIAGNOSES} initialize : texts",
    "doctor.restoring": f"doctor: graph put_back no_trace {DIAGNOSES} models_of_others",
    "doctor.thresholds": f"doctor: thresholds thresholds_of_relations {DIAGNOSES} : texts",
    "exercises.cases": "exercises: patients clinic repairs : texts",
    "exercises.checking": "exercises: questions : texts",
    "exercises.confined": "exercises: grading : texts",
    "exercises.grading": "exercises: grading : texts",
    "exercises.healthy": "exercises: repairs patients : texts",
    "exercises.running": "exercises: trying questions",
    "exercises.signs": "exercises: signs patients clinic : texts",
    "exercises.trying": "exercises: trying* : texts",
}
# One of each kind: operators of annotations (X | None), and ten replacements of one +, would say little more.
REPLACED = "Binary:Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitAnd_BitXor"
REPLACED += " Comparison:Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_Gt Gt_Lt Is_IsNot IsNot_Is"
REPLACED += " Unary:USub_UAdd Delete_Not Delete_Invert"
NAMES = ["AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"]
NAMES += ["NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop", "ExceptionReplacer"]
TIMES = 3  # a mutant that takes so much longer than the module itself never ends


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


def files(tests):
    """Return the paths that a line of TESTS names, each once; what stands behind `::` is one test."""
    folder, found = "", []
    for word in tests.split():
        name, *test = word.split("::")
        if word.endswith(":"):
            folder = word[:-1]
        else:
            paths = sorted((ROOT / "tests" / folder).glob(f"test_{name}.py"))
            found += ["::".join([str(path.relative_to(ROOT)), *test]) for path in paths]
    return list(dict.fromkeys(found))


def run_tests(copy, paths):
    """In a child: end with pytest's code, in the copy."""
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tests")]
    os.environ |= {"PYTHONPATH": f"{copy}:{copy / 'tests'}", "COURSE_PROGRESS": os.devnull}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they would take most of the time
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--noconftest", *paths]))


def survives(copy, paths, limit):
    """Return whether the tests pass in the copy, in so many seconds."""
    child = os.fork()
    if not child:
        try:
            os.setsid()
            run_tests(copy, paths)
        finally:  # whatever escapes kills the mutant
            os._exit(1)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def examine(name, copy, seconds, most):
    place = copy / "course_utils" / f"{name.replace('.', '/')}.py"
    source, paths = place.read_text(encoding="utf-8"), files(TESTS[name])
    start = time.monotonic()
    if not survives(copy, paths, 600):
        raise SystemExit(f"without a mutant these fail, or take ten minutes: pytest -x {' '.join(paths)}")
    alone = time.monotonic() - start
    found, count = places(source), Counter()
    for number, (operator, occurrence) in enumerate(found[:most]):
        if time.monotonic() - start > seconds:
            break
        mutated = MutationVisitor.mutate_code(source, operator, occurrence)
        place.write_text(mutated, encoding="utf-8")
        os.utime(place, (number, number))  # Python tells by time and size which bytecode is old
        lives = survives(copy, paths, TIMES * alone + 5)
        count[lives] += 1
        if lives:
            print(f"  {difference(source, mutated)}", flush=True)
    place.write_text(source, encoding="utf-8")
    print(f"{name}: {count[False]} killed, {count[True]} survived, of {len(found)} mutants", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each module")
    parser.add_argument("--most", type=int, help="mutants of each module")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for module in ALREADY_IMPORTED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "course")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv*", ".git", "build", "__pycache__"))
        for name in arguments.modules or TESTS:
            examine(name, copy, arguments.seconds, arguments.most)
