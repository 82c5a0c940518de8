"""The limits of `relations.py`, a tenth above and a tenth below each: a fault or remark, and none."""

import math

import pytest
import torch
from initialize_networks import batch
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose

# The values are written down here once more: one that changes in the package alone is noticed.
LARGE_ROWS, LARGE_CELL, LARGE_FACTOR, CONSTANT, FAR_LOSS, DROWNED, DROWNING = 100, 5, 100, 10, 100, 1e3, 100
FAR_STEP = 100
IDS = torch.arange(64).view(8, 8)
BOTH_SIDES = pytest.mark.parametrize(("off", "said"), [(1.1, True), (0.9, False)])


def found(model: nn.Module, inputs: torch.Tensor, targets=None, loss=None) -> list[tuple[str, str]]:
    return [(f.layer, f.fault) for f in diagnose(model, inputs, targets, loss).findings]


@torch.no_grad()
def sized(x: torch.Tensor, second: float) -> torch.Tensor:
    """Give numbers a second moment, exactly."""
    return x.mul_(math.sqrt(second) / x.square().mean().sqrt())


class Net(nn.Module):
    """Rows that are looked up, a function of them, and a head."""

    def __init__(self, function=lambda m, x: x):
        super().__init__()
        self.function, self.words, self.head = function, nn.Embedding(64, 32), nn.Linear(32, 3)
        self.branches = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(4))
        self.p = nn.Parameter(batch(8, 32))
        sized(self.words.weight, 1.0)
        for seed, branch in enumerate(self.branches):
            nn.init.orthogonal_(branch.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, ids):
        return self.head(self.function(self, self.words(ids)))


@BOTH_SIDES
def test_rows_that_are_looked_up(off, said):
    net = Net()
    sized(net.words.weight, off * LARGE_ROWS)
    assert (("words", "exploding signal") in found(net, IDS)) == said


@BOTH_SIDES
def test_weights_of_a_recurrent_module(off, said):
    cell = nn.GRU(8, 32, batch_first=True)
    sized(cell.weight_hh_l0, (off * LARGE_CELL) ** 2 / 32)
    assert (("GRU", "exploding signal") in found(cell, batch(16, 5, 8))) == said


@BOTH_SIDES
def test_a_parameter_that_multiplies(off, said):
    net = Net(lambda m, x: x * m.p)
    sized(net.p, (off * LARGE_FACTOR) ** 2)
    assert (("p", "exploding signal") in found(net, IDS)) == said


@BOTH_SIDES
def test_a_parameter_that_is_added(off, said):
    net = Net(lambda m, x: x + m.p)
    sized(net.p, off * CONSTANT)
    assert (("p", "exploding signal") in found(net, IDS)) == said


@BOTH_SIDES
def test_a_loss_beside_that_of_outputs_of_0(off, said):
    model, x = nn.Sequential(nn.Linear(8, 2, bias=False)), batch(64, 8)
    sized(model[0].weight, 1 / 8)
    targets = sized(batch(64, 2, seed=3), 1.0)
    factor = math.sqrt(off * FAR_LOSS / model(x).square().mean().item())

    def loss(y, t):  # of y alone but for the size of t, so that the factor is exact
        return (factor * y).square().mean() + (y == 0).double().mean() * t.square().mean()

    assert (("0", "large initial loss") in found(model, x, targets, loss)) == said


@BOTH_SIDES
def test_a_path_beside_another(off, said):
    small = 1 / math.sqrt(off * DROWNED)
    net = Net(lambda m, x: m.branches[0](x) + small * m.branches[1](m.branches[2](x)))
    assert (("branches.1", "drowned") in found(net, IDS)) == said


@BOTH_SIDES
def test_a_branch_among_others(off, said):
    def function(m, x):
        for i, branch in enumerate(m.branches):
            x = x + (math.sqrt(off * DROWNING) if i == 1 else 1) * branch(F.layer_norm(x, (32,)))
        return F.layer_norm(x, (32,))

    assert (("branches.1", "exploding signal") in found(Net(function), IDS)) == said


@BOTH_SIDES
def test_a_layer_that_another_path_leads_around(off, said):
    net = Net(lambda m, x: F.layer_norm(x + 1e-3 * m.branches[0](x), (32,)))
    with torch.no_grad():
        net.branches[0].weight.mul_(math.sqrt(off * FAR_STEP))
    assert (("branches.0", "exploding signal") in found(net, IDS)) == said
