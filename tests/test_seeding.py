"""What a cell draws depends on its text and the notebook's seed, and on nothing that ran before."""

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from course_utils import seeding

SET_UP = """
import numpy as np, torch
from course_utils.seeding import seed_cells
generator, rng = torch.Generator(), np.random.default_rng()
seed_cells({}, generator, rng)
"""
DRAW = "drawn = [torch.rand(1, generator=generator).item(), torch.rand(1).item(), rng.random()]"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs cells in a shell of their own and returns what the last has drawn."""
    shell = InteractiveShell()
    monkeypatch.setattr(seeding, "get_ipython", lambda: shell)

    def run(*cells: str) -> list[float]:
        for cell in cells:
            shell.run_cell(cell).raise_error()
        return shell.user_ns["drawn"]

    return run


def test_a_cell_draws_the_same_again_and_another_does_not(run):
    first = run(SET_UP.format(1), DRAW)
    assert run("torch.rand(3, generator=generator), torch.rand(2), rng.random()", DRAW) == first
    assert run(f"{DRAW}\n") == first  # some front ends add the end of a line
    other = run(f"{DRAW}  # other draws")
    assert not set(first) & set(other)


def test_the_last_seed_counts(run):
    first = run(SET_UP.format(1), DRAW)
    assert not set(first) & set(run(SET_UP.format(2), DRAW))
    assert run(SET_UP.format(1), DRAW) == first
    assert run(SET_UP.format(1), DRAW) == first


def test_outside_a_notebook_it_seeds_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seeding, "get_ipython", lambda: None)
    generator, rng = torch.Generator(), np.random.default_rng()
    seeding.seed_cells(3, generator, rng)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=generator.manual_seed(3)))
    assert torch.equal(torch.rand(4), torch.rand(4, generator=generator.manual_seed(3)))
    assert rng.random() == np.random.default_rng(3).random()


def test_a_later_call_takes_the_place_of_the_earlier_one_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch):
    shell = InteractiveShell()
    monkeypatch.setattr(seeding, "get_ipython", lambda: shell)
    shell.events.register("pre_run_cell", print)  # somebody else's
    others = list(shell.events.callbacks["pre_run_cell"])
    for seed in (1, 2, 3):
        seeding.seed_cells(seed)
        *kept, _ = shell.events.callbacks["pre_run_cell"]
        assert kept == others
