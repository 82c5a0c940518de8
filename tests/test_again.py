"""A cell that gives something else when it is run again is found, unless it is a slow one."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output
from store_outputs import NOTEBOOK_METADATA


def write(path: Path, *cells: tuple[str, str]) -> str:
    """Write a notebook of cells, each with what it printed when it was run once; return where it is."""
    ran = [
        new_code_cell(
            source, execution_count=place, outputs=[new_output("stream", text=printed)] if printed else []
        )
        for place, (source, printed) in enumerate(cells, 1)
    ]
    nbformat.write(new_notebook(cells=ran, metadata=NOTEBOOK_METADATA), path)
    return str(path)


def test_a_cell_that_lies_the_second_time_is_found(tmp_path: Path):
    count = "n = vars().get('n', 0) + 1\nprint(n)"
    lies = write(tmp_path / "lies.ipynb", ("print('first')", "first\n"), (count, "1\n"))
    slow = write(tmp_path / "slow.ipynb", ("import time", ""), (f"time.sleep(0.3)\n{count}", "1\n"))
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--nbval"]
    path = {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    run = subprocess.run([*command, lies, slow], env=os.environ | path, capture_output=True, text=True)
    assert "1 failed, 5 passed" in run.stdout
    assert "lies.ipynb::its quick cells again" in run.stdout
