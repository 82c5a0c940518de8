"""Kernels for the browser tests, forked from one process that has imported what the course imports.

A kernel of its own would spend four seconds of processor time on these imports, in each notebook anew.
`python forked_kernels.py SOCKET` serves. JupyterLab starts `python forked_kernels.py SOCKET CONNECTION_FILE`,
which asks for a kernel and lives as long as it does.
"""

import importlib
import os
import signal
import socket
import sys


def run_kernel(caller: socket.socket) -> None:
    """Run the kernel that the caller asks for; the connection is closed when it ends."""
    from ipykernel.kernelapp import IPKernelApp

    folder, connection_file = caller.makefile().readline().rstrip("\n").split("\t")
    os.chdir(folder)
    IPKernelApp.launch_instance(argv=["-f", connection_file])


def serve(path: str) -> None:
    """Fork a kernel for each caller; none of these modules starts a thread when it is imported."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()  # who calls too early waits
        importlib.import_module("ipykernel.kernelapp")
        importlib.import_module("course_utils.demos")
        importlib.import_module("course_utils.playground")
        while True:
            caller, _ = door.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run_kernel(caller)
                os._exit(0)
            caller.close()


def ask(path: str, connection_file: str) -> None:
    """Ask for a kernel and wait until it ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(f"{os.getcwd()}\t{connection_file}\n".encode())
        server.recv(1)


if __name__ == "__main__":
    ask(*sys.argv[1:]) if len(sys.argv) > 2 else serve(sys.argv[1])
