"""A forked kernel is like a fresh one, and ends with the process that wanted it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")

WHAT_MIGHT_DIFFER = """
import os, sys
print(os.getcwd(), os.getsid(0) == os.getpid(), sys.path, dir())
import matplotlib.pyplot as plt, torch
print(plt.get_backend(), torch.get_num_threads())
lines = plt.plot([1, 2])
"""
# These leave sockets behind, so they run in a process of their own.
INTERRUPT = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
client.execute("print('now'); import time; time.sleep(600)")
while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
    pass
manager.interrupt_kernel()
while "ename" not in (reply := client.get_shell_msg(timeout=60)["content"]):
    pass
print(reply["ename"])
manager.shutdown_kernel(now=True)
"""
CRASH = """
import os, signal
from jupyter_client.manager import start_new_kernel
start_new_kernel()[1].execute_interactive("import os; print(os.getpid())")
os.kill(os.getpid(), signal.SIGKILL)
"""


def printed(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True).stdout.strip()


def outputs(code: str) -> list[NotebookNode]:
    """Run the code in a kernel of its own."""
    notebook = new_notebook(cells=[new_code_cell(code)])
    quiet = ["--log-level=ERROR"]
    NotebookClient(notebook, kernel_name="python3", extra_arguments=quiet, coalesce_streams=True).execute()
    return notebook.cells[0].outputs


def test_a_forked_kernel_is_like_a_fresh_one(monkeypatch):
    forked = outputs(WHAT_MIGHT_DIFFER)
    monkeypatch.delenv("JUPYTER_PATH")
    assert forked == outputs(WHAT_MIGHT_DIFFER)
    assert [output.output_type for output in forked] == ["stream", "display_data"]


def test_a_forked_kernel_can_be_interrupted():
    assert printed(INTERRUPT) == "KeyboardInterrupt"


def test_a_forked_kernel_ends_after_a_crash_of_what_started_it():
    kernel, deadline = Path("/proc", printed(CRASH)), time.monotonic() + 30
    while kernel.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernel.exists()
