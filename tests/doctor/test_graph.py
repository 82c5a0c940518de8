"""Tests of graph.branch_ends: which sums are residual, and which layer ends the branch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.doctor.graph import analyse, branch_ends
from course_utils.doctor.recording import Recorder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """A module from a function; u, v, w are 16 x 16 weights, e an embedding of 50 words."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        for name in "uvwz":
            self.register_parameter(name, nn.Parameter(torch.randn(16, 16, generator=seeded()) / 4))
        self.e = nn.Parameter(torch.randn(50, 16, generator=seeded()))
        self.p = nn.Parameter(torch.zeros(7, 16))
        self.norm = nn.LayerNorm(16)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def ends(function, *inputs):
    """Return the names of the layers that end a residual branch."""
    recorder = Recorder(Net(function))
    with torch.no_grad():
        recorder.run(inputs)
    return [node.layer for node in branch_ends(analyse(recorder.calls))]


X = torch.randn(8, 16, generator=seeded(1))
TOKENS = torch.randint(0, 50, (4, 16), generator=seeded(2))


def lookup(m, t):
    return F.embedding(t, m.e)


RESIDUAL = {
    "identity": (lambda m, x: x + F.linear(F.relu(F.linear(x, m.u)), m.v), ["v"]),
    "written the other way round": (lambda m, x: F.linear(F.relu(F.linear(x, m.u)), m.v) + x, ["v"]),
    "in place": (lambda m, x: x.clone().add_(F.linear(x, m.u)), ["u"]),
    "that ends in an activation": (lambda m, x: x + F.relu(F.linear(x, m.u)), ["u"]),
    "that ends in a norm": (lambda m, x: x + m.norm(F.linear(x, m.u)), ["norm"]),
    "a norm first": (lambda m, x: x + F.linear(m.norm(x), m.u), ["u"]),
    "a projection": (lambda m, x: F.linear(x, m.w) + F.linear(F.relu(F.linear(x, m.u)), m.v), ["v"]),
    "two in a row": (lambda m, x: (lambda y: y + F.linear(y, m.v))(x + F.linear(x, m.u)), ["u", "v"]),
    "one weight twice": (
        lambda m, x: (lambda y: y + F.linear(y, m.u))(x + F.linear(x, m.u)),
        ["u", "u (call 2)"],
    ),
    "one within another": (lambda m, x: x + (lambda y: y + F.linear(y, m.v))(F.linear(x, m.u)), ["v", "v"]),
    "with attention inside": (
        lambda m, x: (
            x + F.linear(torch.softmax(F.linear(x, m.u) @ F.linear(x, m.v).mT, -1) @ F.linear(x, m.w), m.z)
        ),
        ["z"],
    ),
}

PLAIN = {
    "positions that are learned": (lambda m, t: lookup(m, t) + torch.ones(16, 16), TOKENS),
    "positions that are looked up": (lambda m, t: lookup(m, t) + F.embedding(torch.arange(16), m.e), TOKENS),
    "a mask of another shape, made from the tokens": (
        lambda m, t: F.linear(lookup(m, t), m.u) @ lookup(m, t).mT + t.float()[:, None],
        TOKENS,
    ),
    "two layers side by side": (lambda m, x: F.linear(x, m.u) + F.linear(x, m.v), X),
    "a gate": (
        lambda m, x: (lambda z: z * torch.tanh(F.linear(x, m.u)) + (1 - z) * x)(
            torch.sigmoid(F.linear(x, m.v))
        ),
        X,
    ),
}


@pytest.mark.parametrize("case", RESIDUAL)
def test_residual_branches(case):
    function, expected = RESIDUAL[case]
    assert ends(function, X) == expected


@pytest.mark.parametrize("case", PLAIN)
def test_sums_that_are_no_residual_branches(case):
    function, inputs = PLAIN[case]
    assert ends(function, inputs) == []


def test_a_sum_of_two_inputs_is_no_residual_branch():
    assert ends(lambda m, x, y: F.linear(x, m.u) + y, X, X.clone()) == []
