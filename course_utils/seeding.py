"""One seed for every cell of a notebook: run again, or without the cells before it, a cell draws the same."""

import zlib
from collections.abc import Callable

import numpy as np
import torch
from IPython import get_ipython
from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell


def _start(seed: int, generators: tuple[torch.Generator | np.random.Generator, ...]) -> None:
    """Let torch's global generator and these start from the seed."""
    torch.manual_seed(seed)
    for generator in generators:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(seed).state


def seed_cells(seed: int, *generators: torch.Generator | np.random.Generator) -> None:
    """Seed torch's global generator and these, now and before every cell, by the seed and the cell's text.

    So what a cell draws depends on nothing that ran before it. A later call takes the place of this one;
    outside a notebook nothing is seeded but now.
    """

    def before_cell(cell: ExecutionInfo) -> None:
        _start(zlib.crc32(f"{seed}\n{cell.raw_cell.strip()}".encode()), generators)

    _start(seed, generators)
    if shell := get_ipython():
        _replace(shell, before_cell)


def _replace(shell: InteractiveShell, before_cell: Callable[[ExecutionInfo], None]) -> None:
    """Register a callback, and take back the one of an earlier call."""
    for earlier in list(shell.events.callbacks["pre_run_cell"]):
        if earlier.__qualname__ == before_cell.__qualname__:
            shell.events.unregister("pre_run_cell", earlier)
    shell.events.register("pre_run_cell", before_cell)
