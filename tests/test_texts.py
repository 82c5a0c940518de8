"""What users read is what was stored, read and committed."""

import ast
from pathlib import Path
from traceback import extract_tb

from refusals import refusals
from stored_texts import STORED, texts

import course_utils


def test_what_users_read_is_as_stored():
    assert texts() == STORED.read_text(encoding="utf-8"), (
        "run `python tests/stored_texts.py`, and read the difference"
    )


def test_every_error_of_the_core_is_stored():
    raised = [extract_tb(error.__traceback__)[-1] for error, _ in refusals()]
    lines = {(Path(frame.filename).name, frame.lineno) for frame in raised}
    for path in Path(course_utils.__file__).parent.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        missing = {node.lineno for node in nodes if isinstance(node, ast.Raise) and node.exc}
        missing -= {line for name, line in lines if name == path.name}
        assert not missing, f"{path.name}: no call in tests/refusals.py raises the errors of lines {missing}"
