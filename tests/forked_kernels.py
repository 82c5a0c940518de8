"""Kernels that are forked from one process, which has imported what the notebooks import.

A kernel of its own would spend three seconds of processor time on these imports, in each notebook anew.
Within `forked_kernels()`, Jupyter starts a kernel by `python forked_kernels.py SOCKET -f CONNECTION_FILE`,
which asks `python forked_kernels.py SOCKET` for it and lives as long as it does.
"""

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from select import select
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from threading import Thread
from unittest.mock import patch

EXTENSIONS = Path(__file__).parent.parent / ".jupyter"
# None starts a thread that a fork loses, or looks for a kernel, as course_utils and ipywidgets do. The first
# optimizer imports torch._dynamo.
MODULES = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "pandas",
    "scipy.stats",
    "sklearn.datasets",
    "torch._dynamo",
)


def write_kernel(folder: Path, command: list[str]) -> None:
    """Write a kernel that Jupyter takes for its own; interrupts reach it as messages, not as signals."""
    (folder / "kernels" / "python3").mkdir(parents=True)
    name = {"display_name": "Python 3 (ipykernel)", "language": "python", "interrupt_mode": "message"}
    spec = {"argv": [*command, "-f", "{connection_file}"], **name}
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))


@contextmanager
def forked_kernels() -> Iterator[None]:
    """Let Jupyter find the course's lab extension and no other, and fork its kernels where it can."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"{folder}/socket"]
        server = nullcontext()
        if sys.platform == "linux":  # elsewhere a process that has imported torch cannot be forked safely
            write_kernel(Path(folder), command)
            server = Popen(command, stdin=PIPE, start_new_session=True)  # Ctrl-C is not for it
        with server, patch.dict(os.environ, JUPYTER_PATH=os.pathsep.join([folder, str(EXTENSIONS)])):
            yield


def prepare() -> None:
    """Import the modules as a kernel would."""
    del sys.path[0]  # the folder of this file
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for module in MODULES:
        importlib.import_module(module)


def serve(path: str) -> None:
    """Fork a kernel for each caller, until standard input is closed: by its owner, or since that is dead."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        while sys.stdin not in select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            if "torch" not in sys.modules:  # who starts no kernel does not wait for it
                prepare()
            if os.fork() == 0:
                return run_kernel(caller)
            caller.close()


def run_kernel(caller: socket.socket) -> None:
    """Run a kernel in the caller's place: with its folder, environment and streams, and no longer than it."""
    from ipykernel.kernelapp import IPKernelApp

    def end_with_the_caller() -> None:
        caller.recv(1)
        os.killpg(0, signal.SIGKILL)

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(socket.recv_fds(caller, 1, 3)[1]):
        os.dup2(stream, number)
        os.close(stream)
    folder, environment, arguments = json.loads(caller.makefile().readline())
    os.chdir(folder)
    os.environ.update(environment)
    Thread(target=end_with_the_caller, daemon=True).start()
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def ask(path: str, arguments: list[str]) -> None:
    """Ask for a kernel and wait until it ends, or the process that wants it does."""
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [b"3"], [0, 1, 2])
        server.sendall(json.dumps([os.getcwd(), dict(os.environ), arguments]).encode() + b"\n")
        while os.getppid() == parent and not select([server], [], [], 1)[0]:
            pass


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    ask(path, arguments) if arguments else serve(path)
