"""What each notebook asks of a machine, and how many learners one carries: `make sizes` (Linux).

Every notebook runs from top to bottom in a kernel of its own, as a learner's does, one after the other. The
table goes to docs/sizes.txt, too. A budget is what a learner should be given; what needs more than two thirds
of it is named, and the command fails.
"""

import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import torch
from browser import jupyter_lab
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "sizes.txt"
MEGABYTE, GIGABYTE = 2**20, 2**30
START = 10.0  # seconds until a kernel answers
SECONDS, MEMORY = 60.0, 2000  # of the processor, and megabytes: what Binder gives
LONG = {"11": (300.0, 3000)}  # the same for notebooks that say that they need more
FREE = 1 / 3
MACHINES = [(2, 8), (8, 32), (16, 64), (64, 256)]  # processors and gigabytes
CLASS = 300  # learners
KEPT = 2  # gigabytes for the system and the hub itself
USED = (
    "import resource as _r; _u = _r.getrusage(_r.RUSAGE_SELF); print(_u.ru_utime + _u.ru_stime, _u.ru_maxrss)"
)


@dataclass
class Size:
    """What one notebook took: seconds to start, of the processor and of the clock, and megabytes."""

    name: str
    start: float
    processor: float
    clock: float
    memory: float

    def row(self) -> str:
        """Return the line of the table."""
        return f"{self.name:42}{self.start:8.1f}{self.processor:12.1f}{self.clock:8.1f}{self.memory:10.0f}"

    def complaints(self) -> list[str]:
        """Return what leaves less than a third of its budget free."""
        seconds, memory = LONG.get(self.name[:2], (SECONDS, MEMORY))
        budgets = [
            ("seconds to start", self.start, START),
            ("seconds of the processor", self.processor, seconds),
            ("megabytes", self.memory, memory),
        ]
        return [
            f"{self.name}: {took:.1f} {what}, of a budget of {budget:.0f} of which a third is to stay free"
            for what, took, budget in budgets
            if took > budget * (1 - FREE)
        ]


def size(path: Path) -> Size:
    """Run the notebook at `path` as a learner does and return what it took; the file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [new_code_cell("pass"), *notebook.cells, new_code_cell(USED)]
    client = NotebookClient(
        notebook,
        timeout=None,
        extra_arguments=["--log-level=ERROR"],
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    )
    times = []
    client.on_cell_executed = lambda **_: times.append(time.perf_counter())
    begin = time.perf_counter()
    client.execute()
    processor, kilobytes = map(float, notebook.cells[-1].outputs[0].text.split())
    return Size(path.stem, times[0] - begin, processor, times[-1] - times[0], kilobytes / 1024)


def server_memory() -> float:
    """Return the megabytes of a learner's JupyterLab without any kernel."""
    with jupyter_lab():
        [server] = psutil.Process().children()
        return sum(p.memory_info().rss for p in [server, *server.children(recursive=True)]) / MEGABYTE


def capacity(sizes: list[Size], server: float) -> Iterator[str]:
    """Yield what a learner needs, how many a machine carries, and how long they wait if all run at once."""
    usual = [s for s in sizes if s.name[:2] not in LONG] or sizes
    learner, largest = (server + max(s.memory for s in some) for some in (usual, sizes))
    seconds = sorted(s.processor for s in sizes)[len(sizes) // 2]
    yield f"a learner: {learner:.0f} MB (JupyterLab {server:.0f}, the largest notebook but 11 the rest)"
    yield f"in notebook 11: {largest:.0f} MB"
    for processors, gigabytes in MACHINES:
        learners = math.floor((gigabytes - KEPT) * GIGABYTE / MEGABYTE * (1 - FREE) / learner)
        wait = learners * seconds / processors
        yield (
            f"{processors:3} processors, {gigabytes:3} GB: {learners:4} learners; "
            f"a usual notebook that all run at once takes {wait:.0f} s"
        )
    gigabytes = KEPT + CLASS * learner * MEGABYTE / GIGABYTE / (1 - FREE)
    yield f"{CLASS} learners at once: {gigabytes:.0f} GB, on one machine or several"


def main(paths: list[Path]) -> None:
    sizes = [size(path) for path in tqdm(paths, leave=False)]
    head = f"{'notebook':42}{'start s':>8}{'processor s':>12}{'clock s':>8}{'peak MB':>10}"
    system = f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} processors"
    lines = [system, head, *(s.row() for s in sizes), "", *capacity(sizes, server_memory())]
    print("\n".join(lines))
    if len(paths) == len(list((ROOT / "notebooks").glob("*.ipynb"))):
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit("\n".join(complaint for s in sizes for complaint in s.complaints()) or 0)


if __name__ == "__main__":
    os.environ["COURSE_PROGRESS"] = os.devnull  # nobody's record counts
    main([Path(p).resolve() for p in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb")))
